"""The installation: which process leads, who reads, and what keeps others off."""

from datetime import datetime

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from cellsparse_orchestrator.db.tables.columns import Base, UtcTime


class InstallationRow(Base):
    """Which installation this is; one row. The store holds the same id, so that no other one collects there."""

    __tablename__ = "installation"
    id: Mapped[str] = mapped_column(String(63), primary_key=True)


class LeaseRow(Base):
    """Which orchestrator leads (see `db.lease`); one row."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    fence: Mapped[int] = mapped_column(BigInteger)
    """Grows with every new holder."""
    beat: Mapped[int] = mapped_column(BigInteger)
    """Grows while the holder lives."""
    holder: Mapped[str] = mapped_column(Text)
    """The holder's process (see `db.holder`); empty: nobody."""


class ReaderRow(Base):
    """Which releases work with this layout (see `db.readers`); one row."""

    __tablename__ = "readers"
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    oldest: Mapped[str] = mapped_column(String(32))
    """The earliest layout whose release does."""


class HoldRow(Base):
    """What keeps collections off."""

    __tablename__ = "holds"
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    until: Mapped[datetime] = mapped_column(UtcTime)
