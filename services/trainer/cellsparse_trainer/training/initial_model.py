"""Training from an initial model: what the run takes over from it, and whether the run beats it in the end."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from cellsparse_common.errors import Damaged, FailedPrecondition, InvalidArgument, NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.contract import CONFIG_FILE, C, LightBackend, Model, with_plan
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.models.store import read_card
from cellsparse_trainer.training.scoring import MEASURE, validation_scores

_PERCENTILES = ("lower_percentile", "upper_percentile")
_REPORT = "start.json"


def apply_initial_model(
    config: C, settings: trainer_pb2.TrainingSettings, store: ObjectStore, light: LightBackend[C]
) -> C:
    """Return the configuration of a run, fitted to its initial model, if there is one.

    The network's architecture is the model's. So are percentiles and channels, unless the settings give them.

    Args:
        config: The configuration without an initial model.
        settings: What `config` was resolved from.
        store: Holds the model.
        light: The backend.

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
        config = light.adopt(config, settings, store.get(keys.model_file(settings.initial_model, CONFIG_FILE)).decode())
    except ValueError as error:
        raise InvalidArgument(str(error), "settings") from error
    how = card["preprocessing"]
    feeding = {name: how[name] for name in _PERCENTILES if not settings.HasField(name)}
    if not (settings.HasField("channel") or settings.channels):
        feeding |= {"channel": how["channel"], "channels": tuple(how.get("channels", ()))}
    plan = dataclasses.replace(config.plan, **feeding)
    return with_plan(config, plan)


def initial_inputs(settings: trainer_pb2.TrainingSettings, store: ObjectStore) -> int:
    """Return the number of image channels that the network of the initial model gets.

    Raises:
        NotFound: There is no such model.
    """
    how = read_card(store, settings.initial_model)["preprocessing"]
    return max(1, len(how.get("channels", ())))


def inherit(given: Message, initial: object, names: Sequence[str], model_id: str) -> dict[str, Any]:
    """Return the named settings of the initial model, for a backend's `adopt`.

    Args:
        given: The backend's own settings, as the request gives them.
        initial: The configuration of the initial model.
        names: Fields of both that decide the network's architecture.
        model_id: The model.

    Raises:
        ValueError: One is given and differs from the model's.
    """
    for name in names:
        if given.HasField(name) and getattr(given, name) != getattr(initial, name):
            raise ValueError(
                f"{name} is {getattr(given, name)}, but initial_model {model_id} has {getattr(initial, name)}: "
                "leave it out, or start from another model."
            )
    return {name: getattr(initial, name) for name in names}


def check_backend(card: Mapping[str, Any], model_id: str, backend: str) -> None:
    """Check that a model may be the initial model of a backend's training.

    Raises:
        FailedPrecondition: It belongs to another backend.
    """
    if card["backend"] != backend:
        raise FailedPrecondition(
            f"initial_model {model_id} is a {card['backend']} model; this run trains {backend}.",
            "settings.initial_model",
        )


def initial_validation(store: ObjectStore, run_id: str, model: Model, items: Sequence[Sample]) -> dict[str, float]:
    """Return the validation scores of the weights before the first step; scored once per run, then kept in the store.

    Args:
        store: Keeps the scores for later attempts.
        run_id: The run.
        model: The training's model before its first step.
        items: What the run is validated on (see `validation.windows`).

    Raises:
        StorageError: The store failed, or what it keeps is damaged.
    """
    key = keys.report_file(run_id, _REPORT)
    try:
        kept = json.loads(store.get(key))
        if kept.get("measure") == MEASURE:
            return {str(name): float(value) for name, value in kept["validation"].items()}
    except NotFound:
        pass
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"The start's scores of run {run_id} are damaged: {error}.") from error
    found = validation_scores(model, items)
    store.put(key, json.dumps({"validation": found, "measure": MEASURE}).encode())
    return found


def verdict(step: int, score: float, start: float) -> str:
    """Return the sentence that says whether a run's model beats its initial model.

    Args:
        step: Step of the model's weights; 0: no step was better than the initial model.
        score: Its validation score.
        start: The initial model's score, on the same items.
    """
    if step == 0:
        return f"No step scored above the start's {start:.3f} on validation: not better; the start's weights are kept."
    compared = "better" if score > start else "no better"
    return f"The model of step {step} scores {score:.3f} on validation, the start {start:.3f}: {compared}."
