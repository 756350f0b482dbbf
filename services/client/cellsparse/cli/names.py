"""Lookup of objects by id, beginning of an id, or name."""

import re
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from cellsparse.client import Client
from cellsparse.errors import InvalidArgument, NotFound
from cellsparse_proto.v1 import dataset_pb2, orchestrator_pb2, project_pb2, study_pb2

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_SHOWN = 5
_PLURALS = {"study": "studies"}


class _Named(Protocol):
    id: str
    name: str


N = TypeVar("N", bound=_Named)


def find_dataset(client: Client, text: str) -> dataset_pb2.Dataset:
    """Return the dataset that `text` means (see `find`)."""
    return find(text, "dataset", "cellsparse dataset list", client.dataset, client.datasets)


def find_run(client: Client, text: str) -> orchestrator_pb2.Run:
    """Return the run that `text` means (see `find`)."""
    return find(text, "run", "cellsparse runs list", client.run, client.runs)


def find_model(client: Client, text: str) -> orchestrator_pb2.Model:
    """Return the model that `text` means (see `find`)."""
    return find(text, "model", "cellsparse models list", client.model, client.models)


def find_project(client: Client, text: str) -> project_pb2.Project:
    """Return the project that `text` means (see `find`)."""
    return find(text, "project", "cellsparse open", client.project, client.projects)


def find_study(client: Client, text: str) -> study_pb2.Study:
    """Return the study that `text` means (see `find`)."""
    return find(text, "study", "cellsparse study list", client.study_info, client.studies)


def find(text: str, kind: str, command: str, get: Callable[[str], N], listed: Callable[[], Iterable[N]]) -> N:
    """Return the entry with this id, else the only one with this name, else the only one whose id starts with it.

    Raises:
        NotFound: There is none.
        InvalidArgument: There are several.
    """
    if _ID.fullmatch(text):
        try:
            return get(text)
        except NotFound:
            pass  # a name or the beginning of an id, then
    by_name: list[N] = []
    by_id: list[N] = []
    for entry in listed() if text else ():
        if entry.name == text:
            by_name.append(entry)
        elif entry.id.startswith(text):
            by_id.append(entry)
    found = by_name or by_id
    if not found:
        raise NotFound(f"No {kind} has the id or name {text!r}, or an id that starts with it; `{command}` lists them.")
    if len(found) > 1:
        ids = ", ".join(entry.id for entry in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise InvalidArgument(
            f"{text!r} may be any of {len(found)} {_PLURALS.get(kind, kind + 's')} ({ids}); give a full id."
        )
    return found[0]
