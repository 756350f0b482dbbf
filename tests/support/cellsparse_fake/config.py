"""Configuration of the fake backend: a threshold that learns nothing but counts its steps."""

import json
from dataclasses import asdict, dataclass
from typing import ClassVar

from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.config.presets import make_plan


@dataclass(frozen=True, kw_only=True)
class Config:
    TOOL: ClassVar = "fake"
    MOST_CHANNELS: ClassVar = 16
    FIXED_CHANNELS: ClassVar = True

    plan: Plan

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Config":
        given = json.loads(text)["plan"]
        try:
            return cls(plan=Plan(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}))
        except TypeError as error:
            raise ValueError(f"This is no fake configuration: {error}.") from error


def resolve(settings, items, stacks=False) -> Config:
    defaults = {
        "steps": 20,
        "batch_size": 2,
        "crop_size": 32,
        "learning_rate": 0.1,
        "weight_decay": 0.0,
        "lower_percentile": 0.0,
        "upper_percentile": 100.0,
        "validate_every": 7,
        "checkpoint_every": 5,
        "schedule": "constant",
        "warmup_steps": 0,
        "last_rate": 0.0,
    }
    return Config(plan=make_plan(settings, {**defaults, "crop_depth": 4} if stacks else defaults))
