"""Who makes the call that is being answered, and what they see.

Look-ups of things that belong to projects add `visible` to their queries. Another project's things, and deleted ones,
are then answered exactly as if they did not exist, and are in no list. Threads that answer no call, such as the
reconciler's, see those of all projects.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from sqlalchemy import ColumnElement, and_, true

from cellsparse_common.rpc import callers
from cellsparse_proto.v1 import rules_pb2


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who showed a token."""

    token_id: str
    """Empty for the token of the settings."""
    name: str
    role: rules_pb2.Role
    project_id: str | None
    """None only for administrators."""
    expires_at: datetime | None = None
    """When the token ends; None: never."""


_CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)


def current() -> Caller | None:
    """Return who makes the call; None: authentication is off, or no call is being answered."""
    return _CALLER.get()


@contextmanager
def acting(caller: Caller | None) -> Iterator[None]:
    """Let everything in the `with` block be done for a caller; None: for nobody in particular, who sees all."""
    token = _CALLER.set(caller)
    try:
        yield
    finally:
        _CALLER.reset(token)


def only_project() -> str | None:
    """Return the one project whose things the caller sees; None: those of all."""
    caller = current()
    return None if caller is None or caller.role == rules_pb2.ROLE_ADMIN else caller.project_id


def visible(row: Any) -> ColumnElement[bool]:
    """Return the condition for rows that the caller sees: those of their project that are not deleted.

    Args:
        row: The table, with `project_id` and `deleted_at`.
    """
    return and_(row.deleted_at.is_(None), owned(row.project_id))


def owned(owner: Any) -> ColumnElement[bool]:
    """Return the condition for rows of the caller's project, deleted ones too.

    Args:
        owner: The column with the id of the project that a row belongs to.
    """
    project_id = only_project()
    return true() if project_id is None else owner == project_id


def new_owner() -> str | None:
    """Return the project that something new belongs to, unless it is made of something that belongs to one."""
    caller = current()
    return caller.project_id if caller else None


def caller_metadata(context: grpc.ServicerContext) -> tuple[tuple[str, str], ...]:
    """Return what tells a trainer whom a call is for: a project's callers, or those of one machine, share its turns."""
    direct, caller = callers.connection_of(context), current()
    if caller is None:
        return direct.to_metadata()
    owner = caller.project_id or f"administrator {caller.token_id}"
    return callers.Caller(owner, f"{owner} {direct.member}").to_metadata()


def request_key(request_id: str) -> str | None:
    """Return how a client's request id is stored: callers of different projects may choose the same; None for none."""
    project_id = only_project()
    if not request_id or project_id is None:
        return request_id or None
    return hashlib.sha256(f"{project_id}/{request_id}".encode()).hexdigest()
