"""Times, ids and their protos."""

import secrets
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp


def now() -> datetime:
    """Return the time, UTC."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """Return a fresh id: the prefix and 12 hex digits."""
    return f"{prefix}-{secrets.token_hex(6)}"


def timestamp(time: datetime) -> Timestamp:
    """Return a time as a proto."""
    found = Timestamp()
    found.FromDatetime(time)
    return found


def optional_timestamp(time: datetime | None) -> Timestamp | None:
    """Return a time as a proto, None for none."""
    return None if time is None else timestamp(time)
