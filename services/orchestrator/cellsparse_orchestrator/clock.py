"""Current time, fresh ids and timestamp protos."""

import re
import secrets
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp


def now() -> datetime:
    """Return the current time, UTC."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """Return a fresh id: the prefix and 12 hex digits."""
    return f"{prefix}-{secrets.token_hex(6)}"


def is_id(prefix: str, text: str) -> bool:
    """Tell whether `new_id(prefix)` may have given this id."""
    return re.fullmatch(rf"{re.escape(prefix)}-[0-9a-f]{{12}}", text) is not None


def timestamp(time: datetime) -> Timestamp:
    """Return a time as a proto."""
    found = Timestamp()
    found.FromDatetime(time)
    return found


def optional_timestamp(time: datetime | None) -> Timestamp | None:
    """Return a time as a proto; None for None."""
    return None if time is None else timestamp(time)
