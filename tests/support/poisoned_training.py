"""A real training that meets an image that is not finite: what a user's damaged data or rate would do to the loss."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import common_pb2
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.processes.failures import explain
from cellsparse_trainer.training import loop
from cellsparse_trainer.training.checkpoints import BEST, LATEST, Checkpoints


class Poison(Sequence[Sample]):
    """Samples whose images become NaN from a moment on; labels stay, so that crops are drawn as before."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self.active = False

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        sample = self._samples[index]
        return dataclasses.replace(sample, image=np.full_like(sample.image, np.nan)) if self.active else sample


def digest(samples: Sequence[Sample]) -> str:
    """SHA-256 over all images and labels."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(sample.image.tobytes() + sample.label.tobytes())
    return found.hexdigest()


def check_poisoned_run(backend: ModuleType, config: Any, samples: Sequence[Sample], folder: Path) -> None:
    """Trains with a checkpoint after each step until the images turn NaN after step 3.

    The run must end at step 4, named so, as a fault of the user's data or settings that is not tried again, and the
    newest checkpoint must be that of step 3, which loads and trains on.
    """
    plan = dataclasses.replace(config.plan, steps=6, checkpoint_every=1, validate_every=2)
    config = dataclasses.replace(config, plan=plan)
    poison = Poison(samples)
    before = digest(samples)
    store = open_store(StoreSettings(store_url=f"file://{folder / 'store'}"))
    training = backend.create(config, poison, "cpu")

    class Poisoned:
        def train_step(self, step: int) -> Any:
            if step == 3:
                poison.active = True
                if hasattr(training.batches, "_prepared"):  # what the sampler keeps of the images before
                    training.batches._prepared._kept.clear()
            return training.train_step(step)

        def __getattr__(self, name: str) -> Any:
            return getattr(training, name)

    setup = loop.Setup(
        training=Poisoned(),
        plan=plan,
        items=len(samples),
        validation=samples,
        checkpoints=Checkpoints(store, "run-1", folder / "a"),
    )
    with pytest.raises(FloatingPointError, match="step 4") as caught:
        loop.run(setup, lambda _: None, lambda: False)
    reason, sentence = explain(caught.value, plan)
    assert reason == common_pb2.FAILURE_REASON_USER_ERROR
    # Some layers make a zero of NaN on the way forward: then only the gradient tells.
    assert sentence.startswith(("The loss is nan at step 4.", "The gradient is not finite at step 4."))
    checkpoints = Checkpoints(store, "run-1", folder / "b")
    latest, best = checkpoints.pointer(LATEST), checkpoints.pointer(BEST)
    assert latest is not None
    assert best is not None
    assert (latest.step, best.step) == (3, 2)
    for file, expected in latest.files.items():
        assert hashlib.sha256(store.get(keys.checkpoint("run-1", 3, file))).hexdigest() == expected
    again = backend.create(config, samples, "cpu")
    again.load(checkpoints.fetch(latest))
    assert np.isfinite(again.train_step(3)["loss"])
    assert digest(samples) == before
