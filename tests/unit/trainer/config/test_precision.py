import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.precision import choose
from cellsparse_trainer.config.presets import make_plan

DEFAULTS = {
    "steps": 1,
    "batch_size": 1,
    "crop_size": 32,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "lower_percentile": 0.0,
    "upper_percentile": 100.0,
    "validate_every": 1,
    "checkpoint_every": 1,
    "schedule": "constant",
    "warmup_steps": 0,
    "last_rate": 0.0,
}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("precision", "capable", "service", "chosen"),
    [
        ("auto", False, "auto", "float32"),
        ("auto", True, "auto", "bfloat16"),
        ("auto", True, "float32", "float32"),
        ("float32", True, "auto", "float32"),
        ("bfloat16", True, "auto", "bfloat16"),
        ("bfloat16", True, "float32", "bfloat16"),
    ],
)
def test_what_is_asked_for_is_obeyed_and_auto_follows_device_and_service(
    monkeypatch, device, precision, capable, service, chosen
):
    monkeypatch.setenv("CELLSPARSE_PRECISION", service)
    assert choose(precision, device, capable=capable) == chosen


@pytest.mark.parametrize(("device", "named"), [("cpu", "this CPU"), ("cuda", "this GPU")])
def test_bfloat16_is_refused_where_there_is_none(device, named):
    with pytest.raises(InvalidArgument, match=f"precision is BFLOAT16.*{named}.*AUTO or FLOAT32"):
        choose("bfloat16", device, capable=False)


@pytest.mark.parametrize(
    ("preset", "asked", "planned"),
    [
        ("PRESET_FAST", None, "auto"),
        ("PRESET_FAST", "PRECISION_FLOAT32", "float32"),
        ("PRESET_PAPER", None, "float32"),
        ("PRESET_PAPER", "PRECISION_AUTO", "float32"),
        ("PRESET_PAPER", "PRECISION_BFLOAT16", "bfloat16"),
    ],
)
def test_paper_is_float32_unless_told_otherwise(preset, asked, planned):
    assert make_plan(trainer_pb2.TrainingSettings(preset=preset, precision=asked), DEFAULTS).precision == planned
