"""Which channels of an image a model's network gets in prediction and evaluation."""

import numpy as np
import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.images import Image
from cellsparse_trainer.models.inference import Asked, _as_fed

PIXELS = np.random.default_rng(0).integers(0, 999, (20, 30, 4)).astype(np.uint16)
NAMES = ("a", "b", "c", "d")
TWO = {"channel": None, "channels": [3, 1], "lower_percentile": 0.0, "upper_percentile": 100.0}
ONE = {**TWO, "channels": [], "channel": 2}
OLD = {name: value for name, value in TWO.items() if name != "channels"}


def image(channels=4):
    array = PIXELS[..., :channels] if channels > 1 else PIXELS[..., 0]
    return Image(array=array, axes="YXC" if channels > 1 else "YX", channels=NAMES[:channels] if channels > 1 else ())


def scaled(pixels):
    pixels = pixels.astype(float)
    return (pixels - pixels.min((0, 1))) / np.ptp(pixels, (0, 1))


@pytest.mark.parametrize(
    ("how", "channels", "asked", "expected"),
    [
        (TWO, 4, [], PIXELS[..., [3, 1]]),
        (TWO, 2, [], PIXELS[..., [0, 1]]),  # as many as the network takes
        (TWO, 4, ["a", "2"], PIXELS[..., [0, 2]]),
        (ONE, 4, [], PIXELS[..., 2]),
        (ONE, 4, ["d"], PIXELS[..., 3]),
        (ONE, 4, ["mean"], PIXELS.mean(-1)),
        (OLD, 4, [], PIXELS.mean(-1)),  # the card of an earlier release
    ],
)
def test_the_network_gets_its_channels(how, channels, asked, expected):
    np.testing.assert_allclose(_as_fed(image(channels), how, Asked(asked), stack=False), scaled(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("how", "channels", "asked", "said"),
    [
        (TWO, 3, [], "takes channels 3, 1 of an image; this one has 3"),
        (TWO, 1, [], "takes channels 3, 1 of an image; this one has 1"),
        (TWO, 4, ["0"], "channels are 0; the model takes 2"),
        (TWO, 4, ["mean"], "channels are mean; the model takes 2"),
        (ONE, 4, ["0", "1"], "the model takes 1"),
        (ONE, 4, ["e"], "channel e does not exist"),
        (ONE, 2, [], "channel 2 does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(how, channels, asked, said):
    with pytest.raises(InvalidArgument, match=said):
        _as_fed(image(channels), how, Asked(asked), stack=False)


def named(*names):
    return Image(array=PIXELS[..., : len(names)], axes="YXC", channels=names)


GFP_DAPI = {**TWO, "channels": [0, 1], "channel_names": ["GFP", "DAPI"]}
DAPI = {**ONE, "channel": 0, "channel_names": ["DAPI"]}


@pytest.mark.parametrize(
    ("how", "names", "taken"),
    [
        (GFP_DAPI, ("GFP", "DAPI", "RFP"), [0, 1]),
        (GFP_DAPI, ("dapi", "RFP", "gfp"), [2, 0]),  # another order
        (GFP_DAPI, ("Alexa 488", "Hoechst"), [0, 1]),  # other names: by number
        (GFP_DAPI, ("GFP", "Hoechst"), [0, 1]),  # the one that is there is in its place
        (GFP_DAPI, ("0", "1"), [0, 1]),
        (GFP_DAPI, ("x", "y", "z", "w"), [0, 1]),
        ({**GFP_DAPI, "channel_names": ["1", "0"]}, ("0", "1"), [0, 1]),  # numbers are no names
        (DAPI, ("GFP", "DAPI"), 1),
        (DAPI, ("GFP", "RFP"), 0),
    ],
)
def test_channels_are_found_by_their_names(how, names, taken):
    fed = _as_fed(named(*names), how, Asked(), stack=False)
    np.testing.assert_allclose(fed, scaled(PIXELS[..., taken]), atol=1e-5)


def test_channels_of_which_one_has_another_place_are_not_guessed():
    with pytest.raises(InvalidArgument, match="channels GFP, DAPI; this image has DAPI, RFP"):
        _as_fed(named("DAPI", "RFP"), GFP_DAPI, Asked(), stack=False)
    fed = _as_fed(named("DAPI", "RFP"), GFP_DAPI, Asked(["RFP", "DAPI"]), stack=False)
    np.testing.assert_allclose(fed, scaled(PIXELS[..., [1, 0]]), atol=1e-5)
