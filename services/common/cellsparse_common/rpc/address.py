"""Addresses of servers as people write them."""

import re

from cellsparse_common.errors import InvalidArgument

LARGEST_PORT = 65535
_HOST = re.compile(r"[^\s\x00-\x1f/@:\[\]]+|\[[0-9A-Fa-f:.]+(?:%\w+)?\]")
_BARE_V6 = re.compile(r"[0-9A-Fa-f:.]*::?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


def check_address(address: str, field: str) -> str:
    """Return an address that is host:port.

    Args:
        address: What was given.
        field: Where it was given, for messages: "--address".

    Raises:
        InvalidArgument: It is something else; one sentence says what to write instead.
    """
    if "@" in address:  # what stands before it may be a password: not quoted
        raise InvalidArgument(f"{field} must not hold a user or password; allowed: host:port.", "address")
    host, colon, port = address.rpartition(":")
    scheme, is_url, rest = address.partition("://")
    hint = "such as 127.0.0.1:50050"
    if is_url:
        bare = rest.partition("/")[0]
        hint = f"without {scheme}://" + (f": {bare}" if bare else "")
    elif _BARE_V6.fullmatch(address):
        hint = f"an IPv6 address in brackets: [{address}]:50050"
    elif colon and port.isascii() and port.isdigit() and _HOST.fullmatch(host):
        if 1 <= int(port[:9]) <= LARGEST_PORT:
            return address
        raise InvalidArgument(f"{field} is {_short(address)}; allowed: a port from 1 to {LARGEST_PORT}.", "address")
    raise InvalidArgument(f"{field} is {_short(address)}; allowed: host:port, {hint}.", "address")


def _short(address: str) -> str:
    return repr(address if len(address) <= 200 else f"{address[:200]}...")
