"""Page tokens: opaque positions in a list at which its next page begins."""

import base64
import binascii

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import common_pb2

DEFAULT_SIZE = 50
LARGEST = 2**63 - 1
"""Largest number that a database's row can have."""


def page_size(page: common_pb2.PageRequest) -> int:
    """Return how many entries a page may hold, 1 to 1000."""
    return page.page_size or DEFAULT_SIZE


def encode_token(kind: str, position: int) -> str:
    """Return the token of the page after `position` in the list called `kind`."""
    return base64.urlsafe_b64encode(f"{kind}:{position}".encode()).decode()


def decode_token(kind: str, token: str) -> int | None:
    """Return a token's position; None for the first page.

    Raises:
        InvalidArgument: The list called `kind` did not give this token.
    """
    if not token:
        return None
    try:
        found, _, position = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode().partition(":")
        if found == kind and abs(int(position)) <= LARGEST:
            return int(position)
    except (ValueError, binascii.Error):
        pass
    raise InvalidArgument(f"page_token {token[:40]!r} is not one that this list gave.", "page.page_token")
