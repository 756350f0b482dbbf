"""From a training that has ended to a model in the store."""

import platform
import shutil
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format

from cellsparse_trainer.data.stacks import common_spacing
from cellsparse_trainer.models.store import publish_model
from cellsparse_trainer.training import loop
from cellsparse_trainer.training.channel_choice import describe_channels
from cellsparse_trainer.training.feeding import feeding
from cellsparse_trainer.training.prepare import Prepared


def publish(prepared: Prepared, outcome: loop.Outcome, initial_scores: Mapping[str, float]) -> int:
    """Tune the model's thresholds and store it with its card; return the bytes of its files.

    Args:
        prepared: The training; it holds the weights to publish.
        outcome: How it ended.
        initial_scores: Validation scores of the initial model; empty without one.

    Raises:
        StorageError: The store failed.
    """
    folder = prepared.job.folder / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model = prepared.training.model()
    loop.tune(model, prepared.plan, prepared.validation, prepared.train)
    model.export(folder)
    return publish_model(prepared.store, prepared.job.request.run_id, folder, card(prepared, outcome, initial_scores))


def card(prepared: Prepared, outcome: loop.Outcome, initial_scores: Mapping[str, float]) -> dict[str, Any]:
    """Return the card that describes a model and how to feed it; arguments as for `publish`."""
    plan, request = prepared.plan, prepared.job.request
    return {
        **feeding(str(request.settings.WhichOneof("backend")), plan, prepared.job.inputs.train),
        "version": 1,
        "run_id": request.run_id,
        "dataset_id": request.dataset_id,
        "step": outcome.step,
        "validation": outcome.validation,
        "initial_model": prepared.initial_model,
        "start_validation": dict(initial_scores),
        "settings": json_format.MessageToDict(request.settings),
        "versions": {**prepared.versions, "python": platform.python_version()},
        "spacing": common_spacing(prepared.job.inputs.train),
        "channels_used": describe_channels(plan, [*prepared.job.inputs.train, *prepared.job.inputs.validation]),
    }
