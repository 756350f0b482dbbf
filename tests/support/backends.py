"""Which backends train in the environment that the tests run in: the frameworks of two of them exclude each other."""

import importlib.util
from collections.abc import Iterable

_MODULES = {
    "cellpose": "cellpose.resnet_torch",
    "cellpose_sam": "cellpose.vit",
    "stardist": "stardist",
    "unet": "torch",
}
"""A module that a backend's framework has, and no other version of it."""


def trained_here(names: Iterable[str]) -> list[str]:
    """Return those of the names that are no backend's or a backend's that trains here."""
    return [name for name in names if name not in _MODULES or _is_here(name)]


def _is_here(backend: str) -> bool:
    try:
        return all(importlib.util.find_spec(each) for each in (f"cellsparse_{backend}", _MODULES[backend]))
    except ModuleNotFoundError:  # the parent package is missing
        return False
