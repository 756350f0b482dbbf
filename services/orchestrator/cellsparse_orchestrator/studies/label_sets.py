"""Label sets: the sparsified datasets that members train on. Equal sparsifications have the same id in every study."""

import hashlib
from dataclasses import dataclass

from cellsparse_orchestrator.catalogue.sparse_names import sparse_name
from cellsparse_proto.v1 import sparsifier_pb2

MOST_K = 65535
"""The k that keeps every cell, because no selection is larger."""
_LONGEST_NAME = 100


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """Which labels of a dataset are kept."""

    mode: "sparsifier_pb2.SelectionMode"
    """Which cells."""
    background: "sparsifier_pb2.BackgroundRule"
    """Which background."""
    k: int
    """Cells per image that the mode keeps; 0 keeps all."""
    distance: int | None
    """Background distance, pixels, for rules that have one; None for the sparsifier's default."""


def sparsify_settings(labels: LabelSet, seed: int) -> sparsifier_pb2.SparsifySettings:
    """Return the sparsifier's settings for a label set; they are equal if the kept labels are equal.

    The mode is left out if all cells are kept, and the seed if the mode is not RANDOM, because they change nothing
    then. Members with equal labels therefore share one label set.

    Args:
        labels: Which labels to keep.
        seed: The member's seed.
    """
    mode = labels.mode if labels.k else sparsifier_pb2.SELECTION_MODE_MINMAX
    settings = sparsifier_pb2.SparsifySettings(mode=mode, k=labels.k or MOST_K, background=labels.background)
    if labels.distance is not None and labels.background in (
        sparsifier_pb2.BACKGROUND_RULE_SHIFTED,
        sparsifier_pb2.BACKGROUND_RULE_RING,
    ):
        settings.background_distance = labels.distance
    if mode == sparsifier_pb2.SELECTION_MODE_RANDOM:
        settings.seed = seed
    return settings


def label_set_id(dataset_id: str, settings: sparsifier_pb2.SparsifySettings) -> str:
    """Return the id of a label set's dataset: a digest of its source and settings."""
    asked = dataset_id.encode() + b"\0" + settings.SerializeToString(deterministic=True)
    return f"ds-{hashlib.sha256(asked).hexdigest()[:20]}"


def label_set_name(source: str, settings: sparsifier_pb2.SparsifySettings) -> str:
    """Return the name of a label set's dataset, such as "nuclei minmax k4 shifted" or "nuclei all cells shifted"."""
    if settings.k < MOST_K:
        return sparse_name(source, settings)
    rule = sparsifier_pb2.BackgroundRule.Name(settings.background).removeprefix("BACKGROUND_RULE_").lower()
    suffix = f" all cells {rule}"
    return source[: _LONGEST_NAME - len(suffix)] + suffix
