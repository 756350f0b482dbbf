"""Signing in on the page at an identity provider: real gateway and orchestrator, a provider on loopback."""

import socket
import time

import httpx
import pytest
from support.access import ADMIN, NOWHERE, add_things
from support.gateway import Gateway
from support.identity_provider import AUDIENCE, IdentityProvider
from support.limits import PATIENCE
from support.orchestrator import Orchestrator

from cellsparse_common.config.settings import load
from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.settings import GatewaySettings
from cellsparse_orchestrator.db.session import Database

BEGIN, WAYS = "/api/v1/session/oidc", "/api/v1/session/ways"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    home, port = tmp_path_factory.mktemp("page") / "home", free_port()
    with IdentityProvider() as provider:
        common = {
            "CELLSPARSE_AUTH": "tokens",
            "CELLSPARSE_OIDC_ISSUER": provider.issuer,
            "CELLSPARSE_OIDC_AUDIENCE": AUDIENCE,
        }
        server = {
            "CELLSPARSE_LAUNCHER": "static",
            "CELLSPARSE_TRAINERS": f"unet={NOWHERE}",
            "CELLSPARSE_ADMIN_TOKEN": ADMIN,
        }
        page = {
            "CELLSPARSE_GATEWAY_PORT": port,
            "CELLSPARSE_GATEWAY_OIDC_CLIENT_ID": AUDIENCE,
            "CELLSPARSE_GATEWAY_PAGE_URL": f"http://127.0.0.1:{port}",
        }
        with Orchestrator(home, **common, **server), Gateway(home, **common, **page) as gateway:
            database = Database(f"sqlite:///{home / 'cellsparse.db'}")
            add_things(database, "pr-own")
            database.close()
            provider.claims = {"project": "pr-own"}
            yield provider, gateway.url


@pytest.fixture
def browser(world):
    with httpx.Client(base_url=world[1], timeout=PATIENCE) as client:
        yield client


def at_the_provider(browser):
    """Go to the provider; return the address that it sends the browser back to."""
    begun = browser.get(BEGIN)
    assert begun.status_code == 302
    flags = begun.headers["set-cookie"]
    assert "HttpOnly" in flags
    assert "SameSite=lax" in flags
    return httpx.get(begun.headers["location"], timeout=PATIENCE).headers["location"]


def refusal(answer) -> str:
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert "cellsparse_token" not in answer.headers.get("set-cookie", "")
    return answer.text


def test_people_come_back_signed_in_with_a_cookie_that_no_script_reads(browser):
    assert browser.get(WAYS).json() == {"provider": "127.0.0.1"}
    assert browser.get("/api/v1/projects").status_code == 401
    back = browser.get(at_the_provider(browser))
    assert (back.status_code, back.headers["location"]) == (302, "/")
    (kept,) = [each for each in back.headers.get_list("set-cookie") if each.startswith("cellsparse_token=")]
    assert "HttpOnly" in kept
    assert "SameSite=strict" in kept
    assert browser.get("/api/v1/session").json()["name"] == "ann"
    assert browser.get("/api/v1/projects").status_code == 200
    assert "cellsparse_sign_in" not in browser.cookies


def test_codes_of_others_used_codes_and_refusals_sign_nobody_in(world, browser):
    provider, url = world
    place = at_the_provider(browser)
    with httpx.Client(base_url=url, timeout=PATIENCE) as other:
        assert "begun no such sign-in" in refusal(other.get(place))  # a link that somebody was lured to
    assert browser.get(place).status_code == 302
    assert "begun no such sign-in" in refusal(browser.get(place))
    provider.refuses = True
    assert "did not sign you in" in refusal(browser.get(at_the_provider(browser)))
    provider.refuses = False
    assert "did not sign you in" in refusal(browser.get(f"{BEGIN}/callback"))


def kept(answer) -> dict[str, str]:
    """Cookies that an answer sets, with their flags."""
    pairs = (each.partition("=") for each in answer.headers.get_list("set-cookie"))
    return {name: rest for name, _, rest in pairs}


def test_a_session_outlasts_its_token_where_the_provider_renews_it(world, browser):
    provider, _ = world
    renew = f"{BEGIN}/renew"
    assert browser.post(renew).status_code == 401
    provider.renews = True
    provider.claims = {"project": "pr-own", "exp": time.time() + 100}
    cookies = kept(browser.get(at_the_provider(browser)))
    assert f"Path={BEGIN}" in cookies["cellsparse_refresh"]
    assert "HttpOnly" in cookies["cellsparse_refresh"]
    assert "SameSite=strict" in cookies["cellsparse_refresh"]
    session = browser.get("/api/v1/session").json()
    first = browser.cookies["cellsparse_refresh"]
    provider.claims = {"project": "pr-own"}
    assert browser.post(renew).status_code == 204
    assert browser.cookies["cellsparse_refresh"] != first
    assert browser.get("/api/v1/session").json()["expires_at"] > session["expires_at"]
    # Without a valid token, too: the machine may have slept.
    browser.cookies.set("cellsparse_token", "", domain="127.0.0.1", path="/")
    assert browser.get("/api/v1/projects").status_code == 401
    assert browser.post(renew).status_code == 204
    assert browser.get("/api/v1/projects").status_code == 200
    # Who lost the role since then is out, and so is who shows what was used.
    provider.claims = {"project": "pr-own", "roles": []}
    refused = browser.post(renew)
    assert (refused.status_code, "no role here" in refused.text) == (401, True)
    provider.claims = {"project": "pr-own"}
    assert browser.post(renew).status_code == 401
    provider.renews = False
    assert browser.get(at_the_provider(browser)).status_code == 302
    assert browser.delete("/api/v1/session").status_code == 204
    assert not [name for name in browser.cookies if name in ("cellsparse_refresh", "cellsparse_token")]


def test_who_has_no_role_here_is_told_so(world, browser):
    provider, _ = world
    provider.claims = {"project": "pr-own", "roles": ["<b>other</b>"]}
    assert "The token gives no role here" in refusal(browser.get(at_the_provider(browser)))
    provider.claims = {"project": "pr-own"}


@pytest.mark.parametrize(
    ("issuer", "page", "sentence"),
    [
        ("", "https://page.example", "needs CELLSPARSE_OIDC_ISSUER, which is ''"),
        ("http://provider.example", "https://page.example", "allowed is an address with https"),
        ("https://provider.example", "http://page.example", "CELLSPARSE_GATEWAY_PAGE_URL is 'http://page.example'"),
    ],
)
def test_settings_that_would_send_tokens_in_the_open_are_refused(monkeypatch, issuer, page, sentence):
    monkeypatch.setenv("CELLSPARSE_GATEWAY_OIDC_CLIENT_ID", "cellsparse")
    monkeypatch.setenv("CELLSPARSE_OIDC_ISSUER", issuer)
    monkeypatch.setenv("CELLSPARSE_GATEWAY_PAGE_URL", page)
    with pytest.raises(InvalidArgument, match=sentence):
        load(GatewaySettings)
