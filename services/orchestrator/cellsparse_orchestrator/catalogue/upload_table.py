"""The table of uploads: which files a project sends or has sent, and how long they wait for what is made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, insert, select, update

from cellsparse_common.errors import FailedPrecondition, InvalidArgument, NotFound
from cellsparse_orchestrator.caller import new_owner
from cellsparse_orchestrator.catalogue.limits import check_room
from cellsparse_orchestrator.catalogue.used_uploads import use_uploads
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import UploadRow
from cellsparse_proto.v1 import upload_pb2

_AT_ONCE = 500
_SHOWN = 20
_FRESH = 100
"""The time of an upload is written anew when this part of its life has passed."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """An upload of the caller's project."""

    size: int
    complete: bool


class UploadTable:
    """The table of uploads; each method sees those of the caller's project alone.

    Args:
        database: The database.
        keep: How long an upload is kept that nobody goes on with or asks for.
    """

    def __init__(self, database: Database, keep: timedelta) -> None:
        self._database = database
        self.keep = keep

    def find(self, hashes: Sequence[str]) -> dict[str, Known]:
        """Return what is known of some files, and keep these for longer."""
        found: dict[str, Known] = {}
        for some in _slices(hashes):
            mine = (UploadRow.sha256.in_(some), UploadRow.project_id == _owner())
            with self._database.read() as session:
                columns = (UploadRow.sha256, UploadRow.size, UploadRow.complete, UploadRow.touched_at)
                rows = session.execute(select(*columns).where(*mine)).tuples().all()
            known = {sha256: Known(size=size, complete=complete) for sha256, size, complete, _ in rows}
            if any(touched < now() - self.keep / _FRESH for *_, touched in rows):
                with self._database.write() as session:
                    session.execute(update(UploadRow).where(*mine).values(touched_at=now()))
                    there = set(session.scalars(select(UploadRow.sha256).where(*mine)))
                known = {sha256: each for sha256, each in known.items() if sha256 in there}
            found.update(known)
        return found

    def begin(self, files: Sequence[upload_pb2.UploadFile]) -> None:
        """Add files that are not known.

        Raises:
            InvalidArgument: A file is known with another size, whole.
            ResourceExhausted: They exceed the project's quota.
        """
        sizes = {file.sha256: file.size for file in files}
        owner = _owner()
        with self._database.write() as session:
            known: dict[str, UploadRow] = {}
            for some in _slices(list(sizes)):
                query = select(UploadRow).where(UploadRow.sha256.in_(some), UploadRow.project_id == owner)
                known.update({row.sha256: row for row in session.scalars(query)})
            for sha256, row in known.items():
                if row.complete and row.size != sizes[sha256]:
                    raise InvalidArgument(
                        f"File {sha256} is {row.size} bytes long, not {sizes[sha256]}: one of both numbers is wrong.",
                        "files.size",
                    )
            grown = {sha256: row for sha256, row in known.items() if row.size < sizes[sha256]}
            new = {sha256: size for sha256, size in sizes.items() if sha256 not in known}
            more = sum(new.values()) + sum(sizes[sha256] - row.size for sha256, row in grown.items())
            if more:
                check_room(session, owner or None, 0, more)
            for sha256, row in known.items():
                row.size, row.touched_at = sizes[sha256], now()
            if new:
                mine = {"project_id": owner, "touched_at": now()}
                rows = [{"sha256": sha256, "size": size, **mine} for sha256, size in new.items()]
                session.execute(insert(UploadRow), rows)

    def complete(self, hashes: Sequence[str]) -> None:
        """Note that files are in the store."""
        for some in _slices(hashes):
            mine = (UploadRow.sha256.in_(some), UploadRow.project_id == _owner())
            with self._database.write() as session:
                session.execute(update(UploadRow).where(*mine).values(complete=True, touched_at=now()))

    def use(self, hashes: Sequence[str]) -> None:
        """Note that something was made of files."""
        with self._database.write() as session:
            use_uploads(session, hashes)

    def require(self, files: Sequence[tuple[str, str]]) -> None:
        """Make sure that files are there, and keep them for longer.

        Args:
            files: Hash of each, and what it is for messages.

        Raises:
            FailedPrecondition: Some are not; names the first ones.
        """
        known = self.find(sorted({sha256 for sha256, _ in files}))
        missing = [(sha256, what) for sha256, what in files if sha256 not in known or not known[sha256].complete]
        if missing:
            raise missing_files(missing)

    def forget(self, sha256: str) -> None:
        """Forget a file, which then has to be sent again."""
        with self._database.write() as session:
            session.execute(delete(UploadRow).where(UploadRow.sha256 == sha256, UploadRow.project_id == _owner()))

    def get(self, sha256: str) -> Known:
        """Return a file that was begun; raises NotFound."""
        return self.get_all([sha256])[sha256]

    def get_all(self, hashes: Sequence[str]) -> dict[str, Known]:
        """Return files that were begun; raises NotFound."""
        known = self.find(hashes)
        for sha256 in hashes:
            if sha256 not in known:
                raise NotFound(f"The upload of file {sha256} was not begun, or is too old; begin it with StartUploads.")
        return known

    def old(self) -> list[tuple[str, str, int]]:
        """Return project id, hash and size of what `expire` would remove and never came whole."""
        columns = (UploadRow.project_id, UploadRow.sha256, UploadRow.size)
        with self._database.read() as session:
            chosen = select(*columns).where(UploadRow.touched_at < now() - self.keep, ~UploadRow.complete)
            return list(session.execute(chosen).tuples())

    def expire(self) -> None:
        """Remove what nobody has asked for in a long time, of all projects."""
        with self._database.write() as session:
            session.execute(delete(UploadRow).where(UploadRow.touched_at < now() - self.keep))

    def is_known(self, project_id: str, sha256: str) -> bool:
        """Whether a project has an upload."""
        with self._database.read() as session:
            return session.get(UploadRow, (sha256, project_id)) is not None


def missing_files(files: Sequence[tuple[str, str]]) -> FailedPrecondition:
    """Return the error for files (hash, what it is) that are not there."""
    sha256, what = files[0]
    others = f" Files that are missing or damaged: {len(files)}." if len(files) > 1 else ""
    return FailedPrecondition(
        f"The {what} (SHA-256 {sha256}) is missing or damaged here: send it, then ask again.{others}",
        violations=[(sha256, f"The {what} is missing or damaged.") for sha256, what in files[:_SHOWN]],
    )


def _owner() -> str:
    return new_owner() or ""


def _slices(hashes: Sequence[str]) -> list[Sequence[str]]:
    return [hashes[begin : begin + _AT_ONCE] for begin in range(0, len(hashes), _AT_ONCE)]
