"""Configuration of the fake backend: a threshold that learns nothing but counts its steps."""

import json
from dataclasses import asdict, dataclass

from cellsparse_trainer.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Config:
    plan: Plan

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def resolve(settings, items) -> Config:
    return Config(
        plan=Plan(
            steps=settings.steps if settings.HasField("steps") else 20,
            batch_size=2,
            crop_size=32,
            learning_rate=settings.learning_rate if settings.HasField("learning_rate") else 0.1,
            weight_decay=0,
            lower_percentile=0,
            upper_percentile=100,
            channel=settings.channel if settings.HasField("channel") else None,
            validate_every=7,
            checkpoint_every=5,
            seed=settings.seed,
            device="cpu",
        )
    )
