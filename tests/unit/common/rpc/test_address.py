import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.rpc.address import check_address


@pytest.mark.parametrize("address", ["127.0.0.1:50050", "localhost:1", "a-b.example:65535", "[::1]:8000", "[::]:80"])
def test_addresses(address):
    assert check_address(address, "--address") == address


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://host:8000", r"host:port, without http://: host:8000\."),
        ("https://host:8000/page", r"without https://: host:8000\."),
        ("grpc://", r"without grpc://\."),
        ("::1", r"an IPv6 address in brackets: \[::1\]:50050"),
        ("fe80::1:2", "in brackets"),
        ("[::1]", r"host:port, such as"),
        ("host", r"'host'; allowed: host:port, such as 127\.0\.0\.1:50050\."),
        ("host:", "host:port"),
        (":80", "host:port"),
        ("", "is ''; allowed: host:port"),
        ("   ", "host:port"),
        ("host :80", "host:port"),
        ("host:80 ", "host:port"),
        ("host:8o", "host:port"),
        ("host:\u0663", "host:port"),
        ("host:-1", "host:port"),
        ("host:99999", "a port from 1 to 65535"),
        ("host:0", "a port from 1 to 65535"),
        ("host:" + "9" * 6000, "a port from 1 to 65535"),
        ("a\nb:80", "host:port"),
        ("a\0b:80", "host:port"),
        ("a/b:80", "host:port"),
        ("x" * 5000, r"\.\.\.'; allowed"),
    ],
)
def test_what_is_no_address_is_one_sentence(address, words):
    with pytest.raises(InvalidArgument, match=words) as caught:
        check_address(address, "--address")
    assert len(caught.value.message) < 400
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("address", ["lab:hunter2@host:80", "http://lab:hunter2@host:80", "lab:hun/ter2@host"])
def test_passwords_are_not_shown(address):
    with pytest.raises(InvalidArgument, match="must not hold a user or password") as caught:
        check_address(address, "--address")
    assert "ter2" not in caught.value.message
