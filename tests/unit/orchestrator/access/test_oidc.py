"""Tokens of an identity provider, which answers from this process."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.identity_provider import AUDIENCE, IdentityProvider, new_key
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse_common.errors import Unauthenticated, Unavailable
from cellsparse_orchestrator.access import oidc
from cellsparse_orchestrator.access.oidc import Keys, Provider, Rules
from cellsparse_proto.v1 import rules_pb2

ROLES = {"cellsparse-annotator": rules_pb2.ROLE_ANNOTATOR, "cellsparse-admin": rules_pb2.ROLE_ADMIN}


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(oidc, "WAIT_SECONDS", PATIENCE)


@pytest.fixture(scope="module")
def server():
    with IdentityProvider() as made:
        yield made


def provider(server, **more):
    return Provider(Rules(**{"issuer": server.issuer, "audience": AUDIENCE, "roles": ROLES, **more}))


def test_a_token_says_who_they_are(server):
    found = provider(server).identify(server.sign())
    assert (found.token_id, found.name, found.project) == ("oidc-u-1", "ann", "nuclei")
    assert found.role == rules_pb2.ROLE_ANNOTATOR


def test_the_highest_role_counts_and_claims_may_lie_in_objects(server):
    token = server.sign(
        roles=None,
        realm={"roles": ["other", "cellsparse-admin", "cellsparse-annotator", 7]},
        project=None,
        preferred_username=None,
        sub="x" * 300,
    )
    found = provider(server, roles_claim="realm.roles").identify(token)
    assert (found.role, found.project, found.name) == (rules_pb2.ROLE_ADMIN, "", "x" * 100)
    assert len(found.token_id) == 37
    assert provider(server, roles_claim="realm.roles").identify(token).token_id == found.token_id


@pytest.mark.parametrize("name", ["https://lab.example/roles", "roles"])
def test_a_claim_whose_name_has_dots_is_found(server, name):
    token = server.sign(**{"roles": None, name: "cellsparse-annotator"})
    assert provider(server, roles_claim=name).identify(token).role == rules_pb2.ROLE_ANNOTATOR


@pytest.mark.parametrize(
    ("claims", "sentence"),
    [
        ({"exp": -600}, "The token has ended"),
        ({"exp": None}, "lacks the claim 'exp'"),
        ({"sub": None}, "lacks the claim 'sub'"),
        ({"aud": "another service"}, "is not for 'cellsparse'"),
        ({"aud": None}, "claim 'aud'"),
        ({"iss": "https://elsewhere.example"}, "is not of http://127.0.0.1"),
        ({"nbf": 600}, "not valid yet"),
        ({"roles": ["students"]}, "has none of cellsparse-admin, cellsparse-annotator"),
        ({"roles": {"cellsparse-admin": True}}, "gives no role"),
        ({"project": ["a", "b"]}, "names 2 projects"),
    ],
    ids=str,
)
def test_tokens_that_are_not_taken(server, claims, sentence):
    """Times are seconds from now."""
    claims = {name: time.time() + value if isinstance(value, int) else value for name, value in claims.items()}
    with pytest.raises(Unauthenticated, match=sentence):
        provider(server).identify(server.sign(**claims))


def test_signatures_of_others_are_not_taken(server):
    whole = provider(server)
    stranger = server.sign(key=new_key())
    posing = jwt.encode({"sub": "u-1"}, b"known to all".ljust(64), algorithm="HS256", headers={"kid": "first"})
    unsigned = jwt.encode({"sub": "u-1"}, None, algorithm="none", headers={"kid": "first"})
    head, body, signature = server.sign().split(".")
    other_body = server.sign(roles=["cellsparse-admin"]).split(".")[1]
    for token, sentence in (
        (stranger, "signature"),
        (posing, "'HS256'; allowed: RS256"),
        (unsigned, "'none'; allowed: RS256"),
        (f"{head}.{other_body}.{signature}", "signature"),
        (f"{head}.{body}.", "signature"),
        (server.sign(key_id="unknown", key=new_key()), "a key that the identity provider does not name"),
        ("a.b.c", "no JSON Web Token"),
    ):
        with pytest.raises(Unauthenticated, match=sentence):
            whole.identify(token)


@given(st.text(max_size=80))
def test_any_text_is_refused_with_a_sentence(text):
    with pytest.raises(Unauthenticated):
        Provider(Rules(issuer="https://x.example", audience="a", roles=ROLES), lambda _: b"").identify(text)


def test_keys_that_change_are_fetched_again_but_not_for_every_token(monkeypatch):
    with IdentityProvider() as server:
        whole = provider(server)
        before = server.sign()
        assert whole.identify(before)
        server.keys = {"second": new_key("EC")}
        after = server.sign("second")
        with pytest.raises(Unauthenticated):
            whole.identify(after)  # fetched a moment ago
        for _ in range(20):
            with pytest.raises(Unauthenticated):
                whole.identify(server.sign("unknown", key=server.keys["second"]))
        assert server.reads == 1
        monkeypatch.setattr(oidc, "PAUSE_SECONDS", 0.0)
        assert whole.identify(after)
        assert server.reads == 2
        with pytest.raises(Unauthenticated):
            whole.identify(before)  # its key was withdrawn


def test_a_provider_that_is_down_costs_nobody_who_has_its_key(monkeypatch):
    with IdentityProvider() as server:
        whole, token = provider(server), server.sign()
        assert whole.identify(token)
    monkeypatch.setattr(oidc, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(oidc, "KEYS_SECONDS", 0.0)
    assert whole.identify(token)
    with pytest.raises(Unavailable, match="does not give its keys"):
        provider(server).identify(token)


def test_while_keys_are_fetched_known_ones_serve_and_others_wait_with_a_bound(monkeypatch):
    go_on, asked = threading.Event(), []
    with IdentityProvider() as server:

        def fetch(url):
            asked.append(url)
            if len(asked) > 2:  # the first reading asked twice
                assert go_on.wait(PATIENCE)
            return json.dumps(server.document(url.removeprefix(server.issuer.removesuffix("/realms/lab")))).encode()

        keys = Keys(server.issuer, fetch)
        assert keys.get("first")
        monkeypatch.setattr(oidc, "PAUSE_SECONDS", 0.0)
        monkeypatch.setattr(oidc, "KEYS_SECONDS", 0.0)
        server.keys["second"] = new_key("EC")
        for _ in range(20):
            assert keys.get("first")
        monkeypatch.setattr(oidc, "WAIT_SECONDS", 0.01)
        with pytest.raises(Unavailable):
            keys.get("second")
        monkeypatch.setattr(oidc, "WAIT_SECONDS", PATIENCE)
        until(lambda: len(asked) == 3)
        waiting = [ThreadPoolExecutor(1).submit(keys.get, "second") for _ in range(3)]
        go_on.set()
        assert all(each.result(PATIENCE) for each in waiting)


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://other.example", "jwks_uri": "https://x.example/keys"},
        {"issuer": "https://x.example", "jwks_uri": "http://x.example/keys"},
        {"issuer": "https://x.example"},
        ["issuer"],
        {"issuer": "https://x.example", "jwks_uri": "file:///etc/passwd"},
    ],
    ids=str,
)
def test_documents_that_point_elsewhere_are_not_followed(document):
    asked = []

    def fetch(url):
        asked.append(url)
        return json.dumps(document).encode()

    with pytest.raises(Unavailable):
        Keys("https://x.example", fetch).get("first")
    assert asked == ["https://x.example/.well-known/openid-configuration"]
