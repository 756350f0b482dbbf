"""The page of a server that asks for tokens: signing in, tiles and events signed in, and signing out."""

import socket

import httpx
import numpy as np
import pytest
from support.browser import picture
from support.gateway import Gateway
from support.identity_provider import AUDIENCE, IdentityProvider
from support.orchestrator import Orchestrator, until

import cellsparse
from cellsparse_common.imaging.images import encode_tiff

ADMIN = "an-administrators-token-of-the-settings"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A page that asks for tokens, its project, and an annotator's token."""
    home = tmp_path_factory.mktemp("guarded") / "home"
    settings = {"CELLSPARSE_LAUNCHER": "static", "CELLSPARSE_AUTH": "tokens", "CELLSPARSE_ADMIN_TOKEN": ADMIN}
    with (
        Orchestrator(home, **settings) as orchestrator,
        Gateway(home, CELLSPARSE_AUTH="tokens") as gateway,
        cellsparse.Client(orchestrator.address, token=ADMIN) as admin,
    ):
        project = admin.create_project("nuclei")
        yield gateway.url, project, admin.create_token("Ann", "annotator", project=project.id)


def test_the_page_asks_for_a_token_and_shows_images_signed_in(guarded, visit, tmp_path):
    url, project, made = guarded
    visit.context.add_init_script("if (location.origin !== 'null') localStorage.setItem('cellsparse.tour', 'gone');")
    page = visit.open(url)
    dialog = page.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("Token").fill("wrong")
    dialog.get_by_role("button", name="Sign in").click()
    dialog.get_by_text("not known here").wait_for()
    picture(page, "sign-in.png")
    dialog.get_by_label("Token").fill(made.secret)
    dialog.get_by_role("button", name="Sign in").click()
    page.get_by_text("Ann").wait_for()
    assert page.evaluate("document.cookie") == ""

    path = tmp_path / "field.tif"
    path.write_bytes(encode_tiff(np.random.default_rng(0).integers(0, 4000, (200, 260)).astype(np.uint16)))
    page.goto(f"{url}/#/p/{project.id}")
    page.locator("input[type=file][multiple]").set_input_files([path])
    page.locator(".thumb").wait_for()
    page.wait_for_function("() => [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    with page.expect_response(lambda answer: "/tiles/0/" in answer.url and answer.status == 200):
        page.get_by_role("link", name="field.tif").click()

    with cellsparse.Client(token=ADMIN, address=address_of(url, made.secret)) as admin:
        admin.revoke_token(made.token.id)
    page.goto(url)
    page.get_by_role("dialog", name="Sign in").get_by_text("not known here").wait_for()


def test_people_sign_in_at_their_institutes_provider(tmp_path_factory, visit):
    home = tmp_path_factory.mktemp("provider") / "home"
    common = {"CELLSPARSE_AUTH": "tokens"}
    with IdentityProvider() as provider:
        common["CELLSPARSE_OIDC_ISSUER"] = provider.issuer
        server = {
            "CELLSPARSE_LAUNCHER": "static",
            "CELLSPARSE_ADMIN_TOKEN": ADMIN,
            "CELLSPARSE_OIDC_AUDIENCE": AUDIENCE,
        }
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        page_settings = {"CELLSPARSE_GATEWAY_OIDC_CLIENT_ID": AUDIENCE, "CELLSPARSE_GATEWAY_PAGE_URL": url}
        with (
            Orchestrator(home, **common, **server) as orchestrator,
            Gateway(home, **common, **page_settings, CELLSPARSE_GATEWAY_PORT=port),
            cellsparse.Client(orchestrator.address, token=ADMIN) as admin,
        ):
            provider.claims = {"project": admin.create_project("nuclei").id}
            page = visit.open(url)
            page.get_by_role("link", name="sign in at 127.0.0.1").click()
            page.get_by_text("ann", exact=True).wait_for()
            assert page.evaluate("document.cookie") == ""

            # A provider that renews sessions is asked before each token ends, without a word in the page.
            provider.renews, provider.seconds = True, 4.0
            page.get_by_role("button", name="Sign out").click()
            page.get_by_role("link", name="sign in at 127.0.0.1").click()
            page.get_by_text("ann", exact=True).wait_for()
            until(lambda: provider.renewals >= 2)
            # A machine that slept for longer than a token is valid comes back.
            provider.seconds = 300.0
            visit.context.clear_cookies(name="cellsparse_token")
            page.reload()
            page.get_by_text("ann", exact=True).wait_for()
            assert page.get_by_role("dialog", name="Sign in").count() == 0
            # When the session at the provider has ended, people are asked.
            provider.forget()
            visit.context.clear_cookies(name="cellsparse_token")
            page.reload()
            page.get_by_role("dialog", name="Sign in").wait_for()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def address_of(url, secret):
    status = httpx.get(f"{url}/api/v1/status", headers={"Authorization": f"Bearer {secret}"}).json()
    return next(each["address"] for each in status["services"] if each["name"] == "orchestrator")
