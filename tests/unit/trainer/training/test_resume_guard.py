"""Which attempts are the same training."""

import pytest

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.training.resume_guard import origin, renamed


def request(dataset="ds-a", **settings):
    settings.setdefault("unet", trainer_pb2.UnetSettings())
    return trainer_pb2.StartTrainingRequest(
        run_id="run-1", attempt=1, dataset_id=dataset, settings=trainer_pb2.TrainingSettings(**settings)
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 9},
        {"learning_rate": 0.001},
        {"batch_size": 1},
        {"crop_size": 32},
        {"checkpoint_every_steps": 3},
        {"device": trainer_pb2.DEVICE_CPU},
    ],
)
def test_what_may_change(settings):
    assert origin(request(**settings)) == origin(request())


@pytest.mark.parametrize(
    "other",
    [
        request("ds-b"),
        request(seed=1),
        request(channel=0),
        request(lower_percentile=0),
        request(preset=trainer_pb2.PRESET_PAPER),
        request(unet=trainer_pb2.UnetSettings(base_channels=8)),
        request(unet=None, stardist=trainer_pb2.StardistSettings()),
    ],
)
def test_what_may_not(other):
    assert origin(other) != origin(request())


def test_a_setting_that_had_another_name_in_release_0_1_0_is_the_same():
    stardist = trainer_pb2.StardistSettings(likely_background=0.3, grid=2, n_rays=16)
    settings = trainer_pb2.TrainingSettings(stardist=stardist)
    now = origin(trainer_pb2.StartTrainingRequest(settings=settings))["backend settings"]
    assert renamed("dark_share 0.3, grid 2, n_rays 16") == now
    assert renamed(now) == now
