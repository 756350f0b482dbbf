"""The table of tokens. A secret is random and long, so that its SHA-256 tells nothing of it; only that is stored."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from cellsparse_common.errors import FailedPrecondition, InvalidArgument, NotFound
from cellsparse_orchestrator.caller import Caller
from cellsparse_orchestrator.clock import new_id, now, optional_timestamp, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import ProjectRow, TokenRow
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_proto.v1 import access_pb2, common_pb2, rules_pb2

PREFIX = "cellsparse_"
"""Begins every secret, so that people and scanners of leaked secrets recognise one."""
_SECRET_BYTES = 32
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class KnownToken:
    """A token as the table has it."""

    caller: Caller
    revoked: bool


class Tokens:
    """The table of tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self, name: str, role: rules_pb2.Role, project: str = "", days: int | None = None
    ) -> tuple[access_pb2.Token, str]:
        """Make a token.

        Args:
            name: Whose it is, or what it is for.
            role: What it may do.
            project: Its project, id or name; empty: none.
            days: When it ends, days from now; None: never.

        Returns:
            The token, and its secret, which cannot be read again.

        Raises:
            InvalidArgument: Only an administrator's token may do without a project.
            NotFound: There is no such project.
            FailedPrecondition: Several projects have this name.
        """
        if not project and role != rules_pb2.ROLE_ADMIN:
            raise InvalidArgument("project is missing: only a token of ROLE_ADMIN may do without one.", "project")
        secret = new_secret()
        created = now()
        with self._database.write() as session:
            row = TokenRow(
                id=new_id("token"),
                sha256=digest(secret),
                name=name,
                role=rules_pb2.Role.Name(role).removeprefix("ROLE_"),
                project_id=_find_project(session, project) if project else None,
                created_at=created,
                expires_at=None if days is None else created + timedelta(days=days),
            )
            session.add(row)
            session.flush()
            return _to_proto(row), secret

    def page(self, page: common_pb2.PageRequest) -> tuple[list[access_pb2.Token], str]:
        """Return a page, newest first, and the token of the next page."""
        before = decode_token("tokens", page.page_token)
        query = select(TokenRow).order_by(TokenRow.number.desc()).limit(page_size(page) + 1)
        if before is not None:
            query = query.where(TokenRow.number < before)
        with self._database.read() as session:
            rows = list(session.scalars(query))
        shown = rows[: page_size(page)]
        token = encode_token("tokens", shown[-1].number) if len(rows) > len(shown) else ""
        return [_to_proto(row) for row in shown], token

    def revoke(self, token_id: str) -> access_pb2.Token:
        """Revoke a token for good; raises NotFound."""
        with self._database.write() as session:
            row = session.scalar(select(TokenRow).where(TokenRow.id == token_id).with_for_update())
            if row is None:
                raise NotFound(f"There is no token {token_id!r}.", "token_id")
            row.revoked_at = row.revoked_at or now()
            session.flush()
            return _to_proto(row)

    def find(self, secret: str) -> KnownToken | None:
        """Return the token with this secret; None if there is none."""
        with self._database.read() as session:
            row = session.scalar(select(TokenRow).where(TokenRow.sha256 == digest(secret)))
            if row is None:
                return None
            caller = Caller(
                token_id=row.id,
                name=row.name,
                role=_role(row),
                project_id=row.project_id,
                expires_at=row.expires_at,
            )
            return KnownToken(caller=caller, revoked=row.revoked_at is not None)

    def project_id(self, project: str) -> str:
        """Return the id of a project, given its id or name.

        Projects that belong to another one do not count: an annotator could make one with any name.

        Raises:
            NotFound: There is none.
            FailedPrecondition: Several have this name.
        """
        with self._database.read() as session:
            return _find_project(session, project, ProjectRow.owner_id.is_(None))

    def note_use(self, token_id: str) -> None:
        """Note that a token was used now."""
        with self._database.write() as session:
            session.execute(update(TokenRow).where(TokenRow.id == token_id).values(used_at=now()))


def new_secret() -> str:
    """Return a fresh secret."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest(secret: str) -> str:
    """Return what is stored of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _find_project(session: Session, project: str, *conditions: ColumnElement[bool]) -> str:
    query = select(ProjectRow.id).where(ProjectRow.deleted_at.is_(None), *conditions)
    found = session.scalar(query.where(ProjectRow.id == project))
    if found is not None:
        return found
    named = list(session.scalars(query.where(ProjectRow.name == project).limit(_NAMED + 1)))
    if not named:
        raise NotFound(f"There is no project {project!r}.", "project")
    if len(named) > 1:
        ids = ", ".join(named[:_NAMED]) + (", ..." if len(named) > _NAMED else "")
        raise FailedPrecondition(f"Several projects are named {project!r}; give the id of one: {ids}.", "project")
    return named[0]


def _role(row: TokenRow) -> rules_pb2.Role:
    found: rules_pb2.Role = getattr(rules_pb2, f"ROLE_{row.role}")
    return found


def _to_proto(row: TokenRow) -> access_pb2.Token:
    return access_pb2.Token(
        id=row.id,
        name=row.name,
        role=_role(row),
        project_id=row.project_id or "",
        created_at=timestamp(row.created_at),
        expires_at=optional_timestamp(row.expires_at),
        revoked_at=optional_timestamp(row.revoked_at),
        used_at=optional_timestamp(row.used_at),
    )
