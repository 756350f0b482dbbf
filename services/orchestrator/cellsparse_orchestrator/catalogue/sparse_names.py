"""Names of sparsified datasets."""

from cellsparse_proto.v1 import sparsifier_pb2

_LONGEST = 100


def sparse_name(source: str, settings: sparsifier_pb2.SparsifySettings) -> str:
    """Return the source's name with the settings, such as "nuclei minmax k4 shifted", at most 100 characters."""
    mode = sparsifier_pb2.SelectionMode.Name(settings.mode).removeprefix("SELECTION_MODE_").lower()
    background = sparsifier_pb2.BackgroundRule.Name(settings.background).removeprefix("BACKGROUND_RULE_").lower()
    kind = settings.WhichOneof("amount")
    amount = {
        "k": f"k{settings.k}",
        "total_cells": f"{settings.total_cells} cells",
        "total_percent": f"{settings.total_percent:.6g} percent",
    }[kind]
    suffix = f" {mode} {amount} {background}"
    return source[: _LONGEST - len(suffix)] + suffix
