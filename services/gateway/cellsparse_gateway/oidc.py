"""Signing in at an identity provider (OpenID Connect): the authorization code flow with PKCE.

The gateway keeps nothing between the two requests of a sign-in: what it must remember is in a cookie that no script can
read. What comes out is a token of the provider, which the orchestrator checks like any other.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import quote, urlencode

import urllib3

from cellsparse_common.config.exposure import is_safe_url
from cellsparse_common.errors import Unauthenticated, Unavailable

FETCH_SECONDS = 5.0
KNOWN_SECONDS = 3600.0
"""How long the provider's addresses are used before they are read again."""
LONGEST_TOKEN = 3800
"""Most characters of a token: browsers keep no longer cookies."""
_COOKIE_TEXT = re.compile(rf"[A-Za-z0-9._~+/=-]{{1,{LONGEST_TOKEN}}}")
_LARGEST = 2**20
_PARTS = 3


@dataclass(frozen=True, kw_only=True)
class Registration:
    """How this server is known to the provider."""

    issuer: str
    """The provider's URL."""
    client_id: str
    """The name of this server there."""
    client_secret: str = ""
    """Its secret; empty for a public client."""
    redirect_url: str
    """Where the provider sends browsers back to."""
    scopes: str = "openid profile"
    """What is asked for, separated by blanks."""
    shown: Literal["id_token", "access_token"] = "id_token"
    """Which of the provider's tokens is shown to the orchestrator."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What a sign-in gives."""

    shown: str
    """The token for the orchestrator."""
    refresh: str
    """What the provider gives the next tokens for; empty: nothing does."""


class SignIn:
    """Sign-ins at one provider. Safe to use from many threads.

    Args:
        registration: How this server is known there.
    """

    def __init__(self, registration: Registration) -> None:
        self._registration = registration
        self._lock = threading.Lock()
        self._known: Mapping[str, Any] = {}
        self._until = 0.0

    def begin(self) -> tuple[str, str]:
        """Return the address to send a browser to, and what to remember in its cookie until it comes back.

        Raises:
            Unavailable: The provider does not answer.
        """
        state, verifier, nonce = (secrets.token_urlsafe(32) for _ in range(_PARTS))
        digest = hashlib.sha256(verifier.encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._registration.client_id,
            "redirect_uri": self._registration.redirect_url,
            "scope": self._registration.scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        address = self._address("authorization_endpoint")
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}", f"{state}.{verifier}.{nonce}"

    def finish(self, code: str, state: str, remembered: str) -> Tokens:
        """Return the provider's tokens for a browser that has come back.

        Args:
            code: What the provider gave it.
            state: What the provider sent back with it.
            remembered: What its cookie holds.

        Raises:
            Unauthenticated: This browser has begun no such sign-in, or the provider takes the code back.
            Unavailable: The provider does not answer.
        """
        parts = remembered.split(".")
        if len(parts) != _PARTS or not hmac.compare_digest(parts[0].encode(), state.encode()):
            raise Unauthenticated("This browser has begun no such sign-in, or more than ten minutes ago; begin again.")
        _, verifier, nonce = parts
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._registration.redirect_url,
            "code_verifier": verifier,
        }
        refused = "The identity provider does not take the code that it gave; begin again."
        return self._tokens(self._ask_for_tokens(form, refused), nonce)

    def renew(self, refresh: str) -> Tokens:
        """Return new tokens for what a sign-in gave.

        Args:
            refresh: `Tokens.refresh` of the sign-in, or of the last renewal.

        Raises:
            Unauthenticated: The provider gives no more for it: one has to sign in again.
            Unavailable: The provider does not answer.
        """
        form = {"grant_type": "refresh_token", "refresh_token": refresh}
        answer = self._ask_for_tokens(form, "The session at the identity provider has ended; sign in again.")
        found = self._tokens(answer, "")
        return found if found.refresh else replace(found, refresh=refresh)  # it stays valid unless another one comes

    def _tokens(self, answer: Mapping[str, Any], nonce: str) -> Tokens:
        """Return the tokens of an answer; with a nonce only if they are of its sign-in."""
        token = answer.get(self._registration.shown)
        if not isinstance(token, str) or not token:
            raise Unauthenticated(f"The identity provider gave no {self._registration.shown}.")
        if nonce and self._registration.shown == "id_token" and _claims(token).get("nonce") != nonce:
            raise Unauthenticated("The identity provider's token is of another sign-in; begin again.")
        if len(token) > LONGEST_TOKEN:
            raise Unauthenticated(
                f"The identity provider's token has {len(token)} characters, and browsers keep at most "
                f"{LONGEST_TOKEN}; let it put fewer claims into it."
            )
        refresh = str(answer.get("refresh_token") or "")
        return Tokens(shown=token, refresh=refresh if _COOKIE_TEXT.fullmatch(refresh) else "")

    def _ask_for_tokens(self, form: Mapping[str, str], refused: str) -> Mapping[str, Any]:
        registration = self._registration
        headers = {}
        if registration.client_secret:
            pair = f"{quote(registration.client_id, safe='')}:{quote(registration.client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        form = {**form, "client_id": registration.client_id}
        status, found = _ask("POST", self._address("token_endpoint"), form, headers)
        if status >= 500:
            raise Unavailable(f"The identity provider answers with status {status}; try again.")
        if status != 200:
            raise Unauthenticated(refused)
        return found

    def _address(self, name: str) -> str:
        with self._lock:
            known, until = self._known, self._until
        if time.monotonic() >= until:
            issuer = self._registration.issuer
            status, known = _ask("GET", issuer.rstrip("/") + "/.well-known/openid-configuration")
            if status != 200 or known.get("issuer") != issuer:
                raise Unavailable(f"The identity provider {issuer} does not describe itself; try again.")
            with self._lock:
                self._known, self._until = known, time.monotonic() + KNOWN_SECONDS
        address = str(known.get(name, ""))
        if not is_safe_url(address):
            raise Unavailable(f"The identity provider's {name} is {address!r}; allowed: an address of HTTPS.")
        return address


def _ask(
    method: str, url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Mapping[str, Any]]:
    """Return status and JSON object of an answer; an empty one if there is none.

    Raises:
        Unavailable: Nobody answers.
    """
    try:
        with urllib3.PoolManager(timeout=urllib3.Timeout(total=FETCH_SECONDS), retries=False) as pool:
            answer = pool.request(
                method,
                url,
                body=urlencode(form) if form else None,
                headers={"Content-Type": "application/x-www-form-urlencoded", **(headers or {})} if form else None,
                preload_content=False,
                redirect=False,
            )
            data = answer.read(_LARGEST + 1)
            answer.release_conn()
    except (OSError, urllib3.exceptions.HTTPError):
        raise Unavailable("The identity provider does not answer at the moment; try again.") from None
    try:
        found = json.loads(data) if len(data) <= _LARGEST else {}
    except ValueError:
        found = {}
    return answer.status, found if isinstance(found, dict) else {}


def _claims(token: str) -> Mapping[str, Any]:
    """Return the claims of a token that came from the provider itself; the orchestrator checks its signature."""
    try:
        middle = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def redirect_url(page: str) -> str:
    """Return where the provider sends browsers back to.

    Args:
        page: URL of the page, as browsers know it.

    Raises:
        ValueError: It is no address that a token may be sent to.
    """
    if not is_safe_url(page) or "?" in page or "#" in page:
        raise ValueError(
            f"CELLSPARSE_GATEWAY_PAGE_URL is {page!r}; allowed: the page's address, with https or on this machine."
        )
    return f"{page.rstrip('/')}/api/v1/session/oidc/callback"
