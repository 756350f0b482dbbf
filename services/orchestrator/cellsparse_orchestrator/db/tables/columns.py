"""Types of columns, and the base of all tables."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, Text, text
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator

# SQLite numbers rows by itself only in a column of exactly the type INTEGER.
BigKey = BigInteger().with_variant(Integer, "sqlite")
DELETED = text("deleted_at IS NOT NULL")
"""Rows of an index that would else hold all others too, and could be mistaken for a way to find them."""


class UtcTime(TypeDecorator[datetime]):
    """A time in UTC, even where the database (SQLite) stores no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Restore the zone of a value from the database."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Sentence(TypeDecorator[str]):
    """Text from other programs, which may hold NUL characters that PostgreSQL cannot store."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace NUL characters."""
        return value if value is None else storable(value)


def storable(text: str) -> str:
    """Return a text as `Sentence` keeps it."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Base(DeclarativeBase):
    """All tables."""
