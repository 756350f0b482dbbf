"""Settings at rest: what a backend's Config writes, it reads; anything else is refused."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from cellsparse_trainer.config.backend_config import BackendConfig, ModelConfig
from cellsparse_trainer.config.plan import Plan

PLAN = Plan(
    steps=1,
    batch_size=1,
    crop_size=32,
    learning_rate=0.1,
    weight_decay=0.0,
    lower_percentile=0.0,
    upper_percentile=100.0,
    channel=None,
    validate_every=1,
    checkpoint_every=1,
    seed=1,
    device="cpu",
)


@dataclass(frozen=True, kw_only=True)
class Config(BackendConfig):
    """A backend's settings of every kind."""

    TOOL: ClassVar = "Tiny"
    RANGES: ClassVar = {"width": (1, 4096), "threshold": (0, 1)}
    CHOICES: ClassVar = {"method": ("a", "b")}
    RENAMED: ClassVar = {"broadness": "width"}
    OPTIONAL: ClassVar = ("threshold",)

    width: int
    threshold: float | None
    method: str
    sizes: tuple[int, ...] = (1, 2)


CONFIG = Config(plan=PLAN, width=4, threshold=None, method="a", sizes=(3,))


def test_json_keeps_everything():
    assert Config.from_json(CONFIG.to_json()) == CONFIG
    assert Config.from_dict(CONFIG.to_dict()) == CONFIG


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 5000}, "width is 5000; allowed: 1 to 4,096"),
        ({"width": float("nan")}, "width is nan"),
        ({"width": None}, "no Tiny configuration"),
        ({"width": "4"}, "no Tiny configuration"),
        ({"threshold": 1.5}, "threshold is 1.5; allowed: 0 to 1"),
        ({"method": "c"}, "method is 'c'; allowed: a, b"),
        ({"method": None}, "method is None; allowed: a, b"),
        ({"other": 1}, "no Tiny configuration"),
        ({"plan": 3}, "no Tiny configuration"),
        ({"plan": {"steps": 1}}, "no Tiny configuration"),
    ],
)
def test_what_is_not_allowed_is_named(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config.from_dict(CONFIG.to_dict() | changes)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{}"])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        Config.from_json(text)
    with pytest.raises(ValueError, match=r"."):
        ModelConfig.from_json(text)


def test_a_models_config_has_two_parts():
    stored = ModelConfig(config=CONFIG.to_dict(), fitted={"diameter": 12.5})
    read = ModelConfig.from_json(stored.to_json())
    assert Config.from_dict(read.config) == CONFIG
    assert read.fitted == {"diameter": 12.5}
    with pytest.raises(ValueError, match="config and fitted"):
        ModelConfig.from_dict({"config": CONFIG.to_dict()})


@pytest.mark.parametrize(
    ("record", "fitted"),
    [
        (CONFIG.to_dict(), {}),
        ({"config": CONFIG.to_dict(), "cut": {"cell_threshold": 0.8}}, {"cell_threshold": 0.8}),
        ({"config": CONFIG.to_dict(), "diameter": 30.5, "versions": {"cellpose": "3"}}, {"diameter": 30.5}),
    ],
    ids=["stardist", "unet", "cellpose"],
)
def test_what_release_0_1_0_wrote_is_read(record, fitted):
    read = ModelConfig.from_json(json.dumps(record))
    assert Config.from_dict(read.config) == CONFIG
    assert read.fitted == fitted


def test_a_setting_that_had_another_name_is_read():
    values = CONFIG.to_dict()
    assert Config.from_dict(values | {"broadness": values.pop("width")}) == CONFIG
