"""Who makes a request. The gateway knows nobody: it shows the orchestrator the token of a request with every call.

Programs send the token as `Authorization: Bearer TOKEN`. The page keeps it in a cookie that no script can read, and
that browsers send to this server only and not for pages of other sites. Requests for images, tiles and event streams
come with it as well.
"""

import hashlib
import re
import threading
import time
from collections import OrderedDict
from contextvars import ContextVar
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers

COOKIE = "cellsparse_token"
KNOWN_SECONDS = 5.0
"""How long a token that the orchestrator took is believed, where no call of its own follows."""
_MOST = 1000
_TEXT = re.compile(r"[A-Za-z0-9._~+/=-]{1,6000}")
_TOKEN: ContextVar[str] = ContextVar("token", default="")
_SOURCE: ContextVar[str] = ContextVar("source", default="")


def enter(token: str, source: str) -> None:
    """Let everything that follows in this context be done for whoever showed a token.

    Args:
        token: The token; empty: none.
        source: The address that the request came from.
    """
    _TOKEN.set(token)
    _SOURCE.set(source)


def token() -> str:
    """Return the token of the request that is being answered; empty: it has none."""
    return _TOKEN.get()


def call_metadata() -> tuple[tuple[str, str], ...]:
    """Return what a call to the orchestrator says of the request that it is made for."""
    known = (("authorization", f"Bearer {_TOKEN.get()}"),) if _TOKEN.get() else ()
    source = (("x-forwarded-for", _SOURCE.get()),) if _SOURCE.get() else ()
    return known + source


def token_of(headers: Headers) -> str:
    """Return the token that a request shows, in its header or in the page's cookie; empty: none."""
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return plain(shown)
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return plain(found.value) if found else ""


def plain(text: str) -> str:
    """Return a token without blanks around it; empty for a text that cannot be one, as no header could hold it."""
    token = text.strip()
    return token if _TEXT.fullmatch(token) else ""


class Known:
    """Tokens that the orchestrator took a moment ago. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: OrderedDict[str, float] = OrderedDict()

    def has(self, token: str) -> bool:
        """Return whether the orchestrator took a token a moment ago."""
        with self._lock:
            return time.monotonic() < self._until.get(_digest(token), 0.0)

    def add(self, token: str) -> None:
        """Note that the orchestrator has just taken a token."""
        with self._lock:
            self._until[_digest(token)] = time.monotonic() + KNOWN_SECONDS
            while len(self._until) > _MOST:
                self._until.popitem(last=False)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
