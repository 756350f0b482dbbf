"""Tokens of an identity provider (OpenID Connect): JSON Web Tokens that one of its keys has signed.

The provider's keys are fetched when they are first needed, once an hour after that, and when a token names a key that
is not known yet: so a provider may change its keys at any time. While it does not answer, known keys go on.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
import urllib3

from cellsparse_common.config.exposure import is_safe_url
from cellsparse_common.errors import Unauthenticated, Unavailable
from cellsparse_proto.v1 import rules_pb2

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a public key. Those with a shared secret are refused: a provider's public key could pose as one."""
KEYS_SECONDS = 3600.0
"""How long keys are used before they are fetched again."""
PAUSE_SECONDS = 10.0
"""Shortest time between two fetches: unknown keys in tokens, and a provider that is down, must not cost one each."""
FETCH_SECONDS = 5.0
WAIT_SECONDS = 5.0
"""Longest time that a call waits for keys that are being fetched."""
LEEWAY_SECONDS = 30.0
"""By how much clocks may differ."""
_LARGEST = 2**20
_LONGEST_NAME = 100
_PLAIN = re.compile("[a-z0-9-]{1,58}")
_LAST_SECOND = 253_402_300_799
"""Of the year 9999, where dates end."""

Fetch = Callable[[str], bytes]
"""Returns what is at a URL; raises OSError or urllib3's HTTPError."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who showed a token, as the provider says."""

    token_id: str
    """"oidc-" and the subject; of one that is long or has other characters than small letters, digits and -, 32 digits
    of its SHA-256."""
    name: str
    """Name for people."""
    role: rules_pb2.Role
    """Highest role that the token gives."""
    project: str
    """Project, id or name; empty: none."""
    expires_at: datetime
    """When the token ends, UTC."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Which tokens are taken, and what they give."""

    issuer: str
    """The provider's URL, as its tokens name it (`iss`)."""
    audience: str
    """Whom its tokens are for (`aud`)."""
    roles_claim: str = "roles"
    """Where tokens have a text or a list of texts that give roles; dots lead into objects: realm_access.roles."""
    project_claim: str = "project"
    """Where tokens have the id or name of a project; dots lead into objects."""
    roles: Mapping[str, rules_pb2.Role]
    """Role by such a text."""


class Provider:
    """An identity provider.

    Args:
        rules: Which of its tokens are taken.
        fetch: Reads its documents.
    """

    def __init__(self, rules: Rules, fetch: Fetch | None = None) -> None:
        self._rules = rules
        self._keys = Keys(rules.issuer, fetch or _fetch)

    def identify(self, token: str) -> Identity:
        """Return who showed a token.

        Raises:
            Unauthenticated: It is not valid, or gives no role, or more than one project.
            Unavailable: The provider does not answer, and its keys are not known.
        """
        claims = self._verified(token)
        texts = _texts(_claim(claims, self._rules.roles_claim))
        given = [self._rules.roles[text] for text in texts if text in self._rules.roles]
        if not given:
            allowed = ", ".join(sorted(self._rules.roles))
            raise Unauthenticated(
                f"The token gives no role here: its claim {self._rules.roles_claim!r} has none of {allowed}."
            )
        projects = _texts(_claim(claims, self._rules.project_claim))
        if len(projects) > 1:
            raise Unauthenticated(
                f"The token names {len(projects)} projects in its claim {self._rules.project_claim!r}; allowed: one."
            )
        name = next((str(claims[key]) for key in ("preferred_username", "email", "name") if claims.get(key)), "")
        subject = str(claims["sub"])
        return Identity(
            token_id=_token_id(subject),
            name=(name or subject)[:_LONGEST_NAME],
            role=max(given),
            project=projects[0] if projects else "",
            expires_at=datetime.fromtimestamp(min(int(claims["exp"]), _LAST_SECOND), UTC),
        )

    def _verified(self, token: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise Unauthenticated("The token is no JSON Web Token that can be read.") from None
        if header.get("alg") not in ALGORITHMS:
            raise Unauthenticated(f"The token is signed with {header.get('alg')!r}; allowed: {', '.join(ALGORITHMS)}.")
        found = self._keys.get(header.get("kid"))
        try:
            key = jwt.PyJWK(dict(found), algorithm=found.get("alg") or header["alg"])
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._rules.audience,
                issuer=self._rules.issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The token has ended; sign in at the identity provider for another one.") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated(
                f"The token is not for {self._rules.audience!r}, the audience of this server."
            ) from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated(
                f"The token is not of {self._rules.issuer}, the issuer that this server takes."
            ) from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated(f"The token lacks the claim {error.claim!r}.") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("The token is not valid yet; compare the clocks of provider and server.") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise Unauthenticated("The token's signature is not one of the identity provider's.") from None
        return claims


class Keys:
    """The keys of a provider. Safe to use from many threads.

    One thread at a time fetches keys. Nobody waits for it whose key is known, and nobody for long.

    Args:
        issuer: The provider's URL.
        fetch: Reads its documents.
    """

    def __init__(self, issuer: str, fetch: Fetch) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._changed = threading.Condition()
        self._reading = False
        self._known: dict[str, Mapping[str, Any]] = {}
        self._fetched = self._tried = float("-inf")

    def get(self, key_id: object) -> Mapping[str, Any]:
        """Return the key (JSON Web Key) that a token names; the provider's only one if the token names none.

        Raises:
            Unauthenticated: The provider has no such key.
            Unavailable: The provider does not answer in time, and the key is not known.
        """
        with self._changed:
            found = self._find(key_id)
            current = found is not None and time.monotonic() - self._fetched < KEYS_SECONDS
            if not (current or self._reading) and time.monotonic() - self._tried >= PAUSE_SECONDS:
                self._tried = time.monotonic()
                self._reading = True
                threading.Thread(target=self._read, name="oidc-keys", daemon=True).start()
            if found is None and self._reading:
                self._changed.wait_for(lambda: not self._reading, WAIT_SECONDS)
                found = self._find(key_id)
            if found is not None:
                return found
            if self._reading or not self._known:
                raise Unavailable(
                    f"The identity provider {self._issuer} does not give its keys at the moment; try again."
                )
            raise Unauthenticated("The token is signed with a key that the identity provider does not name.")

    def _find(self, key_id: object) -> Mapping[str, Any] | None:
        if key_id is None and len(self._known) == 1:
            return next(iter(self._known.values()))
        return self._known.get(key_id) if isinstance(key_id, str) else None

    def _read(self) -> None:
        """Fetch the keys in a thread of its own, and wake those that wait; known keys stay if that fails."""
        found: dict[str, Mapping[str, Any]] | None = None
        try:
            found = self._fetched_keys()
        finally:
            with self._changed:
                if found is not None:
                    self._known = found
                    self._fetched = time.monotonic()
                self._reading = False
                self._changed.notify_all()

    def _fetched_keys(self) -> dict[str, Mapping[str, Any]] | None:
        """Return the provider's keys by id; None: they cannot be had."""
        try:
            document = json.loads(self._fetch(self._issuer.rstrip("/") + "/.well-known/openid-configuration"))
            place = str(document["jwks_uri"])
            if document["issuer"] != self._issuer or not is_safe_url(place):
                return None
            return {str(key.get("kid", "")): key for key in json.loads(self._fetch(place))["keys"] if _signs(key)}
        except (OSError, urllib3.exceptions.HTTPError, ValueError, KeyError, TypeError, AttributeError):
            return None


def is_token(text: str) -> bool:
    """Return whether a text has the form of a JSON Web Token."""
    return text.count(".") == 2


def _signs(key: Mapping[str, Any]) -> bool:
    """Return whether a key checks signatures, and is a public one: providers list others as well."""
    return key.get("use", "sig") == "sig" and key.get("kty") in ("RSA", "EC", "OKP")


def _fetch(url: str) -> bytes:
    with urllib3.PoolManager(timeout=urllib3.Timeout(total=FETCH_SECONDS), retries=False) as pool:
        answer = pool.request("GET", url, preload_content=False, redirect=False)
        data: bytes = answer.read(_LARGEST + 1)
        answer.release_conn()
        if answer.status != 200 or len(data) > _LARGEST:
            raise OSError(f"{url} answers with status {answer.status} and {len(data)} bytes")
        return data


def _claim(claims: Mapping[str, Any], path: str) -> object:
    found: object = claims.get(path)
    if found is None:
        found = claims
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _texts(value: object) -> Sequence[str]:
    if isinstance(value, str):
        return [value] if value else []
    return [text for text in value if isinstance(text, str) and text] if isinstance(value, list) else []


def _token_id(subject: str) -> str:
    if _PLAIN.fullmatch(subject):
        return f"oidc-{subject}"
    return f"oidc-{hashlib.sha256(subject.encode()).hexdigest()[:32]}"
