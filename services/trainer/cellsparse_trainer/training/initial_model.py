"""Training that starts from a given model: what the run takes over from it, and whether it beats it in the end."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from cellsparse_common.errors import FailedPrecondition, InvalidArgument, NotFound, StorageError
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.contract import CONFIG_FILE, Model
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.models.store import read_card
from cellsparse_trainer.training.scoring import validation_scores

Adopt = Callable[[Any, trainer_pb2.TrainingSettings, str], Any]
"""A backend's `adopt`: gives a configuration the network of a model (see `Backend`)."""
_FEEDING = ("channel", "lower_percentile", "upper_percentile")
_REPORT = "start.json"


def follow_start(config: Any, settings: trainer_pb2.TrainingSettings, store: ObjectStore, adopt: Adopt) -> Any:
    """Return the configuration of a run, fitted to the model that it starts from, if there is one.

    The network's architecture is the model's; so are percentiles and channel unless the settings give them.

    Args:
        config: What the settings make without a start.
        settings: What was asked for.
        store: Holds the model.
        adopt: The backend's.

    Raises:
        NotFound: There is no such model.
        FailedPrecondition: It belongs to another backend.
        InvalidArgument: A setting contradicts the model, or it takes stacks where the dataset has images.
    """
    if not settings.initial_model:
        return config
    card = read_card(store, settings.initial_model)
    check_backend(card, settings.initial_model, str(settings.WhichOneof("backend")))
    axes, wanted = card.get("axes", "YX"), "YX" if config.plan.crop_depth is None else "ZYX"
    if axes != wanted:
        raise InvalidArgument(
            f"initial_model {settings.initial_model} takes axes {axes}; this run trains on axes {wanted}.",
            "settings.initial_model",
        )
    try:
        config = adopt(config, settings, store.get(keys.model_file(settings.initial_model, CONFIG_FILE)).decode())
    except ValueError as error:
        raise InvalidArgument(str(error), "settings") from error
    feeding = {name: card["preprocessing"][name] for name in _FEEDING if not settings.HasField(name)}
    return dataclasses.replace(config, plan=dataclasses.replace(config.plan, **feeding))


def inherit(given: Message, start: Any, names: Sequence[str], model_id: str) -> dict[str, Any]:
    """Return the named settings of the model that training starts from, for a backend's `adopt`.

    Args:
        given: The backend's own settings, as they were asked for.
        start: The configuration of the model.
        names: Fields of both that decide the network's architecture.
        model_id: The model.

    Raises:
        ValueError: One is given, and another than the model's.
    """
    for name in names:
        if given.HasField(name) and getattr(given, name) != getattr(start, name):
            raise ValueError(
                f"{name} is {getattr(given, name)}, but initial_model {model_id} has {getattr(start, name)}: "
                "leave it out, or start from another model."
            )
    return {name: getattr(start, name) for name in names}


def check_backend(card: Mapping[str, Any], model_id: str, backend: str) -> None:
    """Check that a model may be the start of a backend's training.

    Raises:
        FailedPrecondition: It belongs to another backend.
    """
    if card["backend"] != backend:
        raise FailedPrecondition(
            f"initial_model {model_id} is a {card['backend']} model; this run trains {backend}.",
            "settings.initial_model",
        )


def start_validation(store: ObjectStore, run_id: str, model: Model, items: Sequence[Sample]) -> dict[str, float]:
    """Return the validation scores of the weights before the first step; scored once per run, then kept in the store.

    Args:
        store: Keeps the scores for later attempts.
        run_id: The run.
        model: The training's model before its first step.
        items: What the run is validated on.

    Raises:
        StorageError: The store failed, or what it keeps is damaged.
    """
    key = keys.report_file(run_id, _REPORT)
    try:
        kept = json.loads(store.get(key))
        return {str(name): float(value) for name, value in kept["validation"].items()}
    except NotFound:
        pass
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(f"The start's scores of run {run_id} are damaged: {error}.") from error
    found = validation_scores(model, items)
    store.put(key, json.dumps({"validation": found}).encode())
    return found


def verdict(step: int, score: float, start: float) -> str:
    """Return the sentence that says whether a run's model beats its start.

    Args:
        step: Step of the model's weights; 0: no step was better than the start.
        score: Its validation score.
        start: The start's, on the same items.
    """
    if step == 0:
        return f"No step scored above the start's {start:.3f} on validation: not better; the start's weights are kept."
    compared = "better" if score > start else "no better"
    return f"The model of step {step} scores {score:.3f} on validation, the start {start:.3f}: {compared}."
