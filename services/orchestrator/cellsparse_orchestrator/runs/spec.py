"""A run's specification in the store: everything needed to repeat the run."""

import importlib.metadata
import json
import logging
from functools import cache

from google.protobuf import json_format

from cellsparse_common import tracing
from cellsparse_common.errors import CellsparseError
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2

_LOG = logging.getLogger(__name__)
_VERSION = 1
_PACKAGES = ("cellsparse-orchestrator", "cellsparse-common")


def write_spec(
    store: ObjectStore,
    run_id: str,
    settings: trainer_pb2.TrainingSettings,
    manifest: dataset_pb2.DatasetManifest,
    trainer_versions: dict[str, str],
    trace: str = "",
) -> None:
    """Write a run's specification: before a trainer is asked to train it or, to keep a trace, when it is queued.

    Args:
        store: Where.
        run_id: The run.
        settings: How it trains.
        manifest: The dataset it trains on.
        trainer_versions: The trainer's versions by package; empty where they are not known yet.
        trace: The `traceparent` of the call that made the run, which its attempts join; empty: none.

    Raises:
        StorageError: The store failed.
    """
    spec = {
        "version": _VERSION,
        "run_id": run_id,
        "backend": settings.WhichOneof("backend"),
        "seed": settings.seed,
        "settings": json_format.MessageToDict(settings, preserving_proto_field_name=True),
        "dataset": {
            "id": manifest.dataset.id,
            "items": [
                {
                    "name": item.name,
                    "split": common_pb2.Split.Name(item.split),
                    "image_sha256": item.image_sha256,
                    "label_sha256": item.label_sha256,
                }
                for item in manifest.items
            ],
        },
        "versions": _own_versions() | trainer_versions,
    }
    if trace:
        spec["traceparent"] = trace
    store.put(keys.run_spec(run_id), json.dumps(spec, indent=1, sort_keys=True).encode())


@cache
def _own_versions() -> dict[str, str]:
    """Return the versions of our packages; to look them up reads files, and takes longer than all the rest here."""
    return {package: importlib.metadata.version(package) for package in _PACKAGES}


def read_trace(store: ObjectStore, run_id: str) -> str:
    """Return the `traceparent` of the call that made a run; empty if there is none or traces are not recorded."""
    if not tracing.service():
        return ""
    try:
        found = json.loads(store.get(keys.run_spec(run_id)))["traceparent"]
    except KeyError:
        return ""
    except (CellsparseError, TypeError, ValueError) as error:
        _LOG.info("the run joins no trace: its specification cannot be read: %s", error)
        return ""
    return tracing.valid(str(found))
