"""Signing in at an identity provider on loopback, without a gateway around it."""

import httpx
import pytest
from support.identity_provider import AUDIENCE, IdentityProvider
from support.limits import PATIENCE

from cellsparse_common.errors import Unauthenticated, Unavailable
from cellsparse_gateway.oidc import Registration, SignIn, redirect_url

PAGE = "https://cellsparse.example"


@pytest.fixture
def provider():
    with IdentityProvider() as made:
        yield made


def sign_in(provider, **fields):
    return SignIn(Registration(issuer=provider.issuer, client_id=AUDIENCE, redirect_url=redirect_url(PAGE), **fields))


def agree(address):
    """Code and state that the provider sends a browser back with."""
    sent = httpx.URL(httpx.get(address, timeout=PATIENCE).headers["location"])
    assert str(sent).startswith(f"{PAGE}/api/v1/session/oidc/callback?")
    return sent.params.get("code", ""), sent.params["state"]


@pytest.mark.parametrize("secret", ["", "a secret: with signs"])
def test_a_browser_that_comes_back_has_a_token_of_its_own_sign_in(provider, secret):
    provider.secret = secret.replace(":", "%3A").replace(" ", "%20")  # as RFC 6749 has it
    ours = sign_in(provider, client_secret=secret)
    address, remembered = ours.begin()
    tokens = ours.finish(*agree(address), remembered)
    assert (tokens.shown.count("."), tokens.refresh) == (2, "")
    assert ours.begin()[1] != remembered


@pytest.mark.parametrize("secret", ["", "secret"])
def test_a_session_is_renewed_as_long_as_the_provider_does(provider, secret):
    provider.secret, provider.renews = secret, True
    ours = sign_in(provider, client_secret=secret)
    address, remembered = ours.begin()
    first = ours.finish(*agree(address), remembered)
    provider.claims = {"preferred_username": "later"}
    second = ours.renew(first.refresh)
    assert second.shown != first.shown
    assert second.refresh not in ("", first.refresh)
    provider.renews = False  # it gives no other one: the last one stays
    assert ours.renew(second.refresh).refresh == second.refresh
    for used_up in (first.refresh, second.refresh, "other"):
        with pytest.raises(Unauthenticated, match="sign in again"):
            ours.renew(used_up)


def test_codes_of_others_and_codes_again_are_refused(provider):
    ours = sign_in(provider)
    address, remembered = ours.begin()
    code, state = agree(address)
    others = ours.begin()[1]
    for cookie in ("", "a.b", "..", others, f"{state}.{others.split('.')[1]}.{remembered.split('.')[2]}"):
        with pytest.raises(Unauthenticated, match="begin again"):
            ours.finish(code, state, cookie)
    with pytest.raises(Unauthenticated, match="does not take the code"):  # the last attempt used it up
        ours.finish(code, state, remembered)


def test_a_token_of_another_sign_in_or_none_or_a_long_one_is_refused(provider):
    for claims, shown, sentence in (
        ({"nonce": "other"}, "id_token", "of another sign-in"),
        ({}, "access_token", "gave no access_token"),
        ({"groups": ["x" * 100] * 40}, "id_token", "browsers keep at most 3800"),
    ):
        provider.claims = claims
        ours = sign_in(provider, shown=shown)
        address, remembered = ours.begin()
        with pytest.raises(Unauthenticated, match=sentence):
            ours.finish(*agree(address), remembered)


def test_a_provider_that_is_down_or_describes_another_is_unavailable(provider):
    with IdentityProvider() as gone:
        ours = sign_in(gone)
    with pytest.raises(Unavailable, match="does not answer"):
        ours.begin()
    provider.issuer += "/"
    with pytest.raises(Unavailable, match="does not describe itself"):
        SignIn(Registration(issuer=provider.issuer[:-1], client_id="a", redirect_url=PAGE)).begin()


@pytest.mark.parametrize(
    "page", ["", "cellsparse.example", "http://cellsparse.example", "https://a.example/?x", "ftp://a"]
)
def test_the_page_is_an_address_that_tokens_may_go_to(page):
    with pytest.raises(ValueError, match="CELLSPARSE_GATEWAY_PAGE_URL"):
        redirect_url(page)
    assert redirect_url("http://127.0.0.1:8000/").startswith("http://127.0.0.1:8000/api/")
