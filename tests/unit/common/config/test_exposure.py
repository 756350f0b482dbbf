"""Which addresses others reach, and what a server there must have."""

import pytest

from cellsparse_common.config.exposure import is_loopback, refuse_exposure
from cellsparse_common.errors import FailedPrecondition


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost", "LOCALHOST", "a.localhost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "[::]", "192.0.2.1", "example.org", "localhost.example.org", "[fe80::1%eth0]", ""],  # noqa: S104
)
def test_beyond_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize("tls", ["", "CERT"])
@pytest.mark.parametrize("authentication", ["", "AUTH"])
def test_what_is_missing_is_named(tls, authentication):
    refuse_exposure("server", "127.0.0.1:1", tls=tls, authentication=authentication, insecure=False)
    refuse_exposure("server", "0.0.0.0:1", tls=tls, authentication=authentication, insecure=True)
    if not tls and not authentication:
        refuse_exposure("server", "0.0.0.0:1", tls=tls, authentication=authentication, insecure=False)
        return
    with pytest.raises(FailedPrecondition) as caught:
        refuse_exposure("server", "0.0.0.0:1", tls=tls, authentication=authentication, insecure=False)
    said = caught.value.message
    assert said.startswith("The server does not listen on 0.0.0.0:1")
    assert ("it has no TLS (CERT)" in said) == bool(tls)
    assert ("it asks nobody who they are (AUTH)" in said) == bool(authentication)
    assert "CELLSPARSE_INSECURE=1" in said
