"""The code of the last release, out of this clone's history, ready to run beside today's.

It runs in the environment of the tests: its own packages come first in PYTHONPATH, and what it needs besides is there,
in the same versions. The files lie outside the tree, in the cache of the Makefile.
"""

import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
from supply.breaking import git, last_release
from support.limits import PATIENCE
from support.paths import ROOT

_PARTS = ("services", "proto", "tests/support", "helm")


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release whose files are here."""

    name: str
    """Such as 0.1.0."""
    folder: Path
    """Where `services`, `tests` and `helm` are."""

    @property
    def path(self) -> str:
        """PYTHONPATH of its services and of its tests' support."""
        packages = sorted(path.parent for path in (self.folder / "services").glob("*/pyproject.toml"))
        return os.pathsep.join(str(path) for path in (*packages, self.folder / "tests"))


def unpack_release() -> Release:
    """Return the last release; skips the test in a clone without its commit."""
    found = last_release(ROOT)
    if found is None:
        pytest.skip("this clone lacks the commit of the last release")
    name, commit = found
    cache = Path(os.environ.get("CELLSPARSE_CACHE") or Path.home() / ".cache" / "cellsparse")
    folder = cache / "releases" / f"{name}-{commit[:12]}"
    if not (folder / ".ready").exists():
        archive = git(ROOT, "archive", "--format=tar", commit, *_PARTS)
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(folder, filter="data")
        stubs = [sys.executable, "services/common/build_stubs.py"]
        subprocess.run(stubs, cwd=folder, timeout=PATIENCE, check=True)
        (folder / ".ready").touch()
    return Release(name=name, folder=folder)
