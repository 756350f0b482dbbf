"""The check of every call: who is it, may they, and what is to be recorded."""

import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from cellsparse_common.errors import (
    CellsparseError,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)
from cellsparse_common.rpc.call_rules import call_rule
from cellsparse_common.rpc.callers import source
from cellsparse_orchestrator.access.changes import Changes
from cellsparse_orchestrator.access.oidc import Identity, Provider, is_token
from cellsparse_orchestrator.access.tokens import Tokens, digest
from cellsparse_orchestrator.caller import Caller, acting
from cellsparse_orchestrator.clock import now
from cellsparse_proto.v1 import rules_pb2

_LOG = logging.getLogger(__name__)
RECHECK_SECONDS = 30.0
_NOTE_SECONDS = 60.0
_SETTING = "settings"
"""Name of the caller with the token of the settings."""
_SUBJECTS = frozenset({"id", "name", "project", "backend", "initial_model"})
"""Fields of a request that say what it is about, beside those that end in _id."""
_DEPTH = 3


class Gate:
    """Checks calls (see `cellsparse_common.rpc.interceptor.Gate`).

    Args:
        tokens: The table of tokens.
        changes: Records what changes something.
        admin_token: A further administrator's token; empty: none.
        provider: Identity provider whose tokens are taken, too; None: none.
        recheck_seconds: How often the token of an open stream is looked up again, at its next message.
    """

    def __init__(
        self,
        tokens: Tokens,
        changes: Changes,
        admin_token: str = "",
        provider: Provider | None = None,
        recheck_seconds: float = RECHECK_SECONDS,
    ) -> None:
        self._tokens = tokens
        self._changes = changes
        self._admin = digest(admin_token) if admin_token else ""
        self._provider = provider
        self._recheck_seconds = recheck_seconds
        self._lock = threading.Lock()
        self._noted: dict[str, float] = {}

    @contextmanager
    def open(self, method: str, metadata: Mapping[str, str], peer: str) -> Iterator["Record"]:
        """Let a call through, done for its caller, and record it at its end.

        Args:
            method: Its full name.
            metadata: What came with it.
            peer: The connection that it came on.

        Raises:
            Unauthenticated: There is no valid token.
            Unavailable: The token is an identity provider's, which does not answer.
            PermissionDenied: The token's role may not make this call.
        """
        shown = metadata.get("authorization", "")
        caller = self._authenticate(shown)
        rule = call_rule(method)
        changes = rule is None or rule.changes
        record = Record(lambda: self._authenticate(shown), self._recheck_seconds, lists=changes)
        result = "OK"
        try:
            _check_role(method, rule, caller)
            with acting(caller):
                yield record
        except CellsparseError as error:
            result = error.status.name
            raise
        except GeneratorExit:
            result = "CANCELLED"
            raise
        except BaseException:
            result = "INTERNAL"
            raise
        finally:
            if changes:
                name = method.rpartition(".")[2]
                self._changes.add(caller, name, record.subject, source(metadata, peer), result)

    def _authenticate(self, authorization: str) -> Caller:
        scheme, _, secret = authorization.partition(" ")
        secret = secret.strip()
        if scheme.lower() != "bearer" or not secret:
            raise Unauthenticated(
                "This server wants a token, and the call shows none: CELLSPARSE_TOKEN, --token-file or "
                "`cellsparse login` give one, other clients send it as `authorization: Bearer TOKEN`."
            )
        if self._admin and hmac.compare_digest(self._admin, digest(secret)):
            return Caller(token_id="", name=_SETTING, role=rules_pb2.ROLE_ADMIN, project_id=None)
        if self._provider is not None and is_token(secret):
            return self._identified(self._provider.identify(secret))
        found = self._tokens.find(secret)
        if found is None or found.revoked:
            raise Unauthenticated("The token is not known here, or was revoked; ask an administrator for another one.")
        ends = found.caller.expires_at
        if ends is not None and ends <= now():
            raise Unauthenticated(f"The token ended on {ends:%Y-%m-%d}; ask an administrator for another one.")
        self._note_use(found.caller.token_id)
        return found.caller

    def _identified(self, identity: Identity) -> Caller:
        if not identity.project and identity.role != rules_pb2.ROLE_ADMIN:
            raise Unauthenticated("The token names no project; only that of an administrator may do without one.")
        try:
            project_id = self._tokens.project_id(identity.project) if identity.project else None
        except (NotFound, FailedPrecondition) as error:
            raise Unauthenticated(f"The token's project cannot be used: {error.message}") from None
        return Caller(
            token_id=identity.token_id,
            name=identity.name,
            role=identity.role,
            project_id=project_id,
            expires_at=identity.expires_at,
        )

    def _note_use(self, token_id: str) -> None:
        """Note that a token was used, at most once a minute."""
        with self._lock:
            if time.monotonic() - self._noted.get(token_id, -_NOTE_SECONDS) < _NOTE_SECONDS:
                return
            self._noted[token_id] = time.monotonic()
        try:
            self._tokens.note_use(token_id)
        except CellsparseError as error:
            _LOG.warning("the use of token %s is not noted: %s", token_id, error.message)


class Record:
    """What a call was about.

    Args:
        authenticate: Raises Unauthenticated if the caller's token is not valid any more.
        recheck_seconds: How often to look.
        lists: Whether the ids in a list of the answer are those of what was made.

    Attributes:
        subject: The ids that its request named, and that of what it made.
    """

    def __init__(self, authenticate: Callable[[], object], recheck_seconds: float, *, lists: bool = False) -> None:
        self.subject = ""
        self._lists = lists
        self._authenticate = authenticate
        self._recheck_seconds = recheck_seconds
        self._checked = time.monotonic()

    def asked(self, request: Message) -> None:
        """Note what a request names; of a stream its first message counts."""
        if not self.subject:
            self.subject = " ".join(f"{name}={value}" for name, value in _named(request, _DEPTH))

    def answered(self, answer: Message) -> None:
        """Note what an answer says was made."""
        for field, value in answer.ListFields():
            if field.is_repeated and not self._lists:
                continue
            made_ids = ",".join(_ids(value if field.is_repeated else [value]))
            made = f"{field.name}={made_ids}"
            if made_ids and made not in self.subject.split(" "):
                self.subject = f"{self.subject} {made}".strip()

    def sending(self, answer: Message) -> None:
        """Note what a message of a stream says was made; raise Unauthenticated if the caller's token has ended."""
        if time.monotonic() - self._checked >= self._recheck_seconds:
            self._authenticate()
            self._checked = time.monotonic()
        self.answered(answer)


def _ids(values: Iterable[Any]) -> list[str]:
    """Return the ids of the messages among some values."""
    found = [getattr(value, "id", "") for value in values if isinstance(value, Message)]
    return [str(made_id) for made_id in found if made_id]


def _named(message: Message, depth: int) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields():
        if field.is_repeated or field.name == "request_id":
            continue
        if field.type == FieldDescriptor.TYPE_STRING and (field.name in _SUBJECTS or field.name.endswith("_id")):
            yield field.name, value
        elif field.type == FieldDescriptor.TYPE_MESSAGE and depth:
            yield from _named(value, depth - 1)


def _check_role(method: str, rule: rules_pb2.CallRule | None, caller: Caller) -> None:
    name = method.rpartition(".")[2]
    if rule is None or rule.scope == rules_pb2.SCOPE_SERVICES:
        raise PermissionDenied(f"{name} is for no client.")
    if caller.role < rule.role:
        needed, has = (rules_pb2.Role.Name(role).removeprefix("ROLE_").lower() for role in (rule.role, caller.role))
        raise PermissionDenied(f"{name} takes the role {needed}; the token {caller.name!r} has the role {has}.")
