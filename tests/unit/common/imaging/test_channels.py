"""Channels: their names in files, which are meant by numbers and names, each scaled by itself."""

from io import BytesIO

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from cellsparse_common import datasets
from cellsparse_common.channels import clean_names, find_channels, is_colour
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.images import decode_image, encode_tiff, normalize_channels, take_channels
from cellsparse_common.storage import FolderStore
from cellsparse_proto.v1 import common_pb2

RNG = np.random.default_rng(0)
THREE = RNG.integers(0, 255, (3, 20, 30)).astype(np.uint8)


def tiff(array, **options):
    buffer = BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png(mode, channels):
    buffer = BytesIO()
    Pillow.fromarray(RNG.integers(0, 255, (20, 30, channels)).astype(np.uint8), mode).save(buffer, "PNG")
    return buffer.getvalue()


OME = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP & more", "µ-tubulin"]}}
IMAGEJ = {"axes": "CYX", "Labels": ["c:1/3 - DAPI", "c:2/3 - GFP", "c:3/3 - RFP"]}
STACK = {
    "axes": "ZCYX",
    "Labels": [f"c:{c}/2 z:{z}/4 - {name}" for z in range(1, 5) for c, name in ((1, "a"), (2, "b"))],
}


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (tiff(THREE, ome=True, metadata=OME), ("DAPI", "GFP & more", "µ-tubulin")),
        (tiff(THREE[:1], ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI"]}}), ("DAPI",)),
        (tiff(THREE, ome=True, metadata={"axes": "CYX"}), ("0", "1", "2")),
        (tiff(THREE, imagej=True, metadata=IMAGEJ), ("DAPI", "GFP", "RFP")),
        (tiff(RNG.integers(0, 9, (4, 2, 20, 30)).astype("u2"), imagej=True, metadata=STACK), ("a", "b")),
        (tiff(THREE, imagej=True, metadata={"axes": "CYX"}), ("0", "1", "2")),
        (tiff(np.moveaxis(THREE, 0, -1), photometric="rgb"), ("red", "green", "blue")),
        (tiff(np.moveaxis(THREE, 0, -1), photometric="minisblack"), ("0", "1", "2")),
        (tiff(THREE[:2], photometric="minisblack"), ("0", "1")),
        (tiff(THREE[0]), ()),
        (png("RGB", 3), ("red", "green", "blue")),
        (png("RGBA", 4), ("red", "green", "blue", "alpha")),
    ],
)
def test_names_of_channels_come_from_the_file(data, names):
    assert decode_image(data, max_pixels=10_000, stacks=True).channels == names


@pytest.mark.parametrize(
    ("given", "count", "names"),
    [
        ((), 3, ("0", "1", "2")),
        ((), 1, ()),
        (("one",), 1, ("one",)),
        (("a", "A", " "), 3, ("a", "1", "2")),
        (("a\n b\x00", "1"), 2, ("a b", "1")),
        (("1", "0"), 2, ("0", "1")),
        (("a", "b"), 3, ("0", "1", "2")),
        (("x" * 100, "y"), 2, ("x" * 64, "y")),
    ],
)
def test_names_are_short_printable_and_unique(given, count, names):
    assert clean_names(given, count) == names


def test_channels_are_found_by_number_and_by_name():
    names = ("DAPI", "GFP", "488")
    assert find_channels(["gfp", "0"], names, 3) == (1, 0)
    assert find_channels(["488"], names, 3) == (2,)
    assert find_channels(["mean"], names, 3) == ()
    for wanted, said in [
        (["3"], "3 channel.*channel 3 does not exist.*0 .DAPI., 1 .GFP., 2 .488."),
        (["1", "GFP"], "once"),
    ]:
        with pytest.raises(InvalidArgument, match=said):
            find_channels(wanted, names, 3)
    with pytest.raises(InvalidArgument, match="mean stands alone"):
        find_channels(["mean", "0"], names, 3)
    assert is_colour(("Red", "green", "blue", "alpha"))
    assert not is_colour(("green", "red", "blue"))


def test_sixteen_channels_are_kept_with_their_names(tmp_path):
    store, image = FolderStore(tmp_path), RNG.integers(0, 2**16, (24, 32, 16)).astype(np.uint16)
    decoded = decode_image(encode_tiff(image), max_pixels=24 * 32 * 4)
    assert decoded.axes == "YXC"
    names = [f"marker {n}" for n in range(16)]
    item = datasets.put_item(
        store,
        name="a",
        split=common_pb2.SPLIT_TRAIN,
        image=decoded.array,
        label=np.ones((24, 32), "i4"),
        channels=names,
    )
    assert list(item.channels) == names
    np.testing.assert_array_equal(datasets.read_image(store, item), image)
    with pytest.raises(InvalidArgument, match=r"has 17 channels.*1 to 16"):
        decode_image(encode_tiff(RNG.random((8, 8, 17)).astype("f4")), max_pixels=10_000)


def test_each_channel_is_scaled_by_its_own_percentiles():
    image = RNG.random((30, 40, 3)) * (1, 100, 1e4)
    found = normalize_channels(take_channels(image, (2, 0)), 0, 100)
    assert found.shape == (30, 40, 2)
    np.testing.assert_allclose(found.min((0, 1)), 0)
    np.testing.assert_allclose(found.max((0, 1)), 1)
    np.testing.assert_allclose(np.corrcoef(found[..., 0].ravel(), image[..., 2].ravel())[0, 1], 1)
    with pytest.raises(InvalidArgument, match=r"3 channel.*channel 3 does not exist"):
        take_channels(image, (0, 3))
