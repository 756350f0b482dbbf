"""In which Python environment a trainer of the local launcher runs.

Trainers run in the orchestrator's environment. One whose framework excludes another trainer's has it in the extra
`framework` of its package, and runs in an environment of its own. That lies beside the orchestrator's and is named
after both: `.venv-cellpose-sam` beside `.venv`.
"""

import importlib.metadata
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from cellsparse_orchestrator.settings import TRAINER_GROUP

EXTRA = "framework"
_PINNED = re.compile(rf"""([\w.-]+)==([\w.+-]+) *;.*extra == ['"]{EXTRA}['"]""")


def find_python(backend: str, given: Mapping[str, str]) -> str | None:
    """Return the Python interpreter that runs a trainer; None if the trainer's environment is missing.

    Args:
        backend: The trainer's.
        given: Interpreters by backend, as settings name them.
    """
    if backend in given:
        return given[backend]
    if _fits_here(backend):
        return sys.executable
    own = own_environment(backend) / "bin" / "python"
    return str(own) if own.exists() else None


def own_environment(backend: str) -> Path:
    """Return the folder of a backend's own environment, whether it exists or not."""
    here = Path(sys.prefix)
    return here.with_name(f"{here.name}-{backend.replace('_', '-')}")


def how_to_get(backend: str) -> str:
    """Return the sentence for people who lack a backend's environment."""
    name = backend.replace("_", "-")
    return (
        f"{backend} needs an environment of its own, {own_environment(backend)}, which is missing: `make {name}` in "
        "the sources makes it, then start the services again."
    )


def _fits_here(backend: str) -> bool:
    """Whether a trainer has its framework in this environment, as far as its package says."""
    for entry in importlib.metadata.entry_points(group=TRAINER_GROUP):
        if entry.name == backend and entry.dist is not None:
            return is_met(entry.dist.requires or [])
    return True


def is_met(requirements: Iterable[str]) -> bool:
    """Whether the packages that the extra `framework` pins among a package's requirements are here, in its versions."""
    pinned = [found.groups() for found in map(_PINNED.match, requirements) if found]
    return all(_version(name) == version for name, version in pinned)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
