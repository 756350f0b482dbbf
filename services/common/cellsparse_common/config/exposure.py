"""Whether others on the network can reach an address, and what a server then needs."""

import ipaddress
from urllib.parse import urlsplit

from cellsparse_common.errors import FailedPrecondition

INSECURE = "CELLSPARSE_INSECURE=1"


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine reach a host.

    Args:
        host: Name or IP address, IPv6 with or without brackets.
    """
    name = host.strip("[]").rstrip(".").lower()
    try:
        return ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def is_safe_url(url: str) -> bool:
    """Return whether nobody on the network can change what a URL gives: it is HTTPS, or of a server on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def refuse_exposure(name: str, address: str, *, tls: str, authentication: str, insecure: bool) -> None:
    """Refuse to listen where others on the network come in, without TLS or without knowing who they are.

    Args:
        name: The server, for the message.
        address: host:port that it is about to listen on.
        tls: The settings that give it TLS; empty: it has it.
        authentication: The settings that make it ask who calls; empty: it does.
        insecure: Whether it shall listen all the same.

    Raises:
        FailedPrecondition: It must not; the message says what to set.
    """
    if insecure or is_loopback(address.rpartition(":")[0]) or not (tls or authentication):
        return
    lacks = [
        *([f"it has no TLS ({tls})"] if tls else []),
        *([f"it asks nobody who they are ({authentication})"] if authentication else []),
    ]
    raise FailedPrecondition(
        f"The {name} does not listen on {address}, where others on the network reach it: {' and '.join(lacks)}. Set "
        f"these, or {INSECURE} (--insecure of `cellsparse up`) where everybody who reaches it may do everything."
    )
