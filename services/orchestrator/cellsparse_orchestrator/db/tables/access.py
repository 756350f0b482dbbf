"""Tokens, and the record of changes."""

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from cellsparse_orchestrator.db.tables.columns import Base, BigKey, Sentence, UtcTime


class TokenRow(Base):
    """A token that opens calls; its secret is not stored."""

    __tablename__ = "tokens"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(63), unique=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    """Of the secret, which is random and long: it needs no slow hash."""
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(16))
    project_id: Mapped[str | None] = mapped_column(String(63))
    """Not a foreign key: what a deleted project's runs left stays theirs."""
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)
    used_at: Mapped[datetime | None] = mapped_column(UtcTime)


class ChangeRow(Base):
    """A call that changed something, or tried to."""

    __tablename__ = "changes"
    number: Mapped[int] = mapped_column(BigKey, primary_key=True, autoincrement=True)
    time: Mapped[datetime] = mapped_column(UtcTime, index=True)
    token_id: Mapped[str] = mapped_column(String(63))
    """Empty for the token of the settings."""
    name: Mapped[str] = mapped_column(String(100))
    project_id: Mapped[str] = mapped_column(String(63))
    method: Mapped[str] = mapped_column(String(100))
    subject: Mapped[str] = mapped_column(Sentence)
    source: Mapped[str] = mapped_column(Sentence)
    result: Mapped[str] = mapped_column(String(32))
    __table_args__ = (
        Index("changes_of_token", "token_id", "number"),
        Index("changes_of_project", "project_id", "number"),
    )
