"""Which channels a run trains on: as asked, else all, or the mean where that is what people mean."""

import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import dataset_pb2, trainer_pb2
from cellsparse_trainer.config.presets import make_plan
from cellsparse_trainer.training.channel_choice import choose_channels, describe_channels

RGB = ("red", "green", "blue")
TWO = ("GFP", "DAPI")


def items(*names):
    """An item for each tuple of names; a number is that many channels without names."""
    found = []
    for number, each in enumerate(names):
        count = each if isinstance(each, int) else len(each)
        shape, axes = ((9, 9), "YX") if count == 1 else ((9, 9, count), "YXC")
        channels = () if isinstance(each, int) else each
        found.append(dataset_pb2.DatasetItem(name=f"i{number}", shape=shape, axes=axes, channels=channels))
    return found


def plan(settings):
    paper = settings.preset == trainer_pb2.PRESET_PAPER
    defaults = {
        "steps": 9,
        "batch_size": 1,
        "crop_size": 64,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "lower_percentile": 0.0 if paper else 1.0,
        "upper_percentile": 100.0,
        "validate_every": 9,
        "checkpoint_every": 9,
        "schedule": "constant",
        "warmup_steps": 0,
        "last_rate": 0.0,
    }
    return make_plan(settings, defaults)


def chosen(images, most=16, inputs=0, **given):
    settings = trainer_pb2.TrainingSettings(**given)
    return choose_channels(plan(settings), settings, images, tool="Tool", most=most, inputs=inputs)


@pytest.mark.parametrize(
    ("images", "given", "most", "channel", "channels", "said"),
    [
        (items(1, 1), {}, 16, None, (), ""),
        (items(TWO), {}, 2, None, (0, 1), "channels 0 (GFP), 1 (DAPI)"),
        (items(TWO), {"channels": ["dapi"]}, 2, 1, (), "channel 1 (DAPI)"),
        (items(TWO), {"channels": ["DAPI", "0"]}, 2, None, (1, 0), "channels 1 (DAPI), 0 (GFP)"),
        (items(TWO), {"channels": ["mean"]}, 2, None, (), "the mean of all channels"),
        (items(TWO), {"channel": 1}, 2, 1, (), "channel 1 (DAPI)"),
        (items(TWO), {"preset": trainer_pb2.PRESET_PAPER}, 2, None, (), "the mean of all channels"),
        (items(2), {}, 16, None, (), "the mean of all channels"),  # a dataset of an earlier release
        (items(2), {"channels": ["0", "1"]}, 16, None, (0, 1), "channels 0, 1"),
        (items(RGB), {}, 16, None, (0, 1, 2), "channels 0 (red), 1 (green), 2 (blue)"),
        (items((*RGB, "alpha")), {}, 16, None, (0, 1, 2), "channels 0 (red)"),
        (items(RGB), {}, 2, None, (), "the mean of all channels of the images, up to 3"),
        (items(RGB, TWO), {}, 16, None, (), "the mean of all channels"),
        (items(1, TWO), {}, 16, None, (), "the mean of all channels"),
    ],
)
def test_channels_are_chosen_and_said(images, given, most, channel, channels, said):
    found = chosen(images, most, **given)
    assert (found.channel, found.channels) == (channel, channels)
    assert said in describe_channels(found, images)
    assert bool(said) == bool(describe_channels(found, images))


def test_only_colours_are_shifted():
    assert chosen(items(RGB)).colour_shift == 0.2
    assert chosen(items(RGB), colour_shift=0.5).colour_shift == 0.5
    assert chosen(items(TWO)).colour_shift == 0
    assert chosen(items(RGB), preset=trainer_pb2.PRESET_PAPER).colour_shift == 0


@pytest.mark.parametrize(
    ("images", "given", "said"),
    [
        (items(("a", "b", "c")), {}, r"3 channels \(0 \(a\), 1 \(b\), 2 \(c\)\); Tool takes at most 2: say which"),
        (items(("a", "b", "c")), {"channels": ["0", "1", "2"]}, "channels are 0, 1, 2; Tool takes at most 2"),
        (
            items(TWO),
            {"channels": ["RFP"]},
            r"Item 'i0': .*channel RFP does not exist. .*0 \(GFP\), 1 \(DAPI\)",
        ),
        (items(TWO, ("DAPI", "GFP")), {"channels": ["DAPI"]}, "are numbers 1 of item 'i0' but 0 of item 'i1'"),
        (items(TWO), {"channels": ["0"], "channel": 0}, "give channels only"),
    ],
)
def test_channels_that_cannot_be_are_refused(images, given, said):
    with pytest.raises(InvalidArgument, match=said):
        chosen(images, 2, **given)


def test_the_network_of_an_initial_model_has_the_last_word():
    assert chosen(items(RGB), inputs=3, channels=["2", "1", "0"]).channels == (2, 1, 0)
    with pytest.raises(InvalidArgument, match=r"on 2 channel\(s\), but the network of its initial model takes 3"):
        chosen(items(RGB), inputs=3, channels=["0", "1"])
