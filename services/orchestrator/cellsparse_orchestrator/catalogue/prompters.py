"""Prompters whose weights users brought: a row of the table for each, and two files in the store.

The files are written before the row and deleted after it, so that a row's files are complete. Files without a row are
what a killed upload or deletion left; a collection removes them.
"""

import logging

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cellsparse_common.errors import AlreadyExists, CellsparseError, NotFound, StorageError
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.catalogue.prompter_uploads import PrompterUpload
from cellsparse_orchestrator.clock import new_id, now, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import PrompterRow
from cellsparse_orchestrator.paging import decode_token, encode_token, page_size
from cellsparse_proto.v1 import common_pb2, prompter_pb2

_LOG = logging.getLogger(__name__)


class Prompters:
    """The table of prompters, and their files.

    Args:
        database: The database.
        store: The object store.
    """

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store

    def page(self, page: common_pb2.PageRequest) -> tuple[list[prompter_pb2.Prompter], str]:
        """Return a page, newest first, and the token of the next page."""
        before = decode_token("prompters", page.page_token)
        query = select(PrompterRow).order_by(PrompterRow.number.desc()).limit(page_size(page) + 1)
        if before is not None:
            query = query.where(PrompterRow.number < before)
        with self._database.read() as session:
            rows = list(session.scalars(query))
        shown = rows[: page_size(page)]
        token = encode_token("prompters", shown[-1].number) if len(rows) > len(shown) else ""
        return [_to_proto(row) for row in shown], token

    def add(self, upload: PrompterUpload) -> prompter_pb2.Prompter:
        """Keep an upload.

        Raises:
            AlreadyExists: There is a prompter of that name.
            CellsparseError: The store or the database failed; nothing of the upload is visible.
        """
        name = upload.header.name
        with self._database.read() as session:
            if _row(session, name) is not None:
                raise _taken(name)
        prompter_id = new_id("prompter")
        try:
            with self._database.publishing.hold():
                self._store.put(keys.prompter_file(prompter_id, "encoder"), upload.encoder)
                self._store.put(keys.prompter_file(prompter_id, "decoder"), upload.decoder)
                return self._insert(prompter_id, upload)
        except (AlreadyExists, StorageError):
            self._remove_files(prompter_id)
            raise  # after any other error a row may refer to the files: if none does, a collection removes them

    def remove(self, name: str) -> None:
        """Delete a prompter; raises NotFound."""
        with self._database.write() as session:
            row = _row(session, name)
            if row is None:
                raise _missing(name)
            session.execute(delete(PrompterRow).where(PrompterRow.number == row.number))
            prompter_id = row.id
        self._remove_files(prompter_id)

    def file(self, name: str, part: keys.PrompterPart) -> tuple[str, prompter_pb2.PrompterFile]:
        """Return the key of a prompter's file and what it is; raises NotFound."""
        with self._database.read() as session:
            row = _row(session, name)
            if row is None:
                raise _missing(name)
            return keys.prompter_file(row.id, part), getattr(_to_proto(row), part)

    def _insert(self, prompter_id: str, upload: PrompterUpload) -> prompter_pb2.Prompter:
        header = upload.header
        row = PrompterRow(
            id=prompter_id,
            name=header.name,
            licence=header.licence,
            created_at=now(),
            encoder_sha256=header.encoder_sha256,
            encoder_size=upload.encoder_size,
            decoder_sha256=header.decoder_sha256,
            decoder_size=upload.decoder_size,
        )
        try:
            with self._database.write() as session:
                session.add(row)
                session.flush()
                return _to_proto(row)
        except IntegrityError:  # a concurrent upload of the same name was quicker
            raise _taken(header.name) from None

    def _remove_files(self, prompter_id: str) -> None:
        try:
            for key in list(self._store.list(keys.prompter_prefix(prompter_id))):
                self._store.delete(key)
        except CellsparseError as error:
            _LOG.warning("the files of prompter %s stay for now: %s", prompter_id, error.message)


def _row(session: Session, name: str) -> PrompterRow | None:
    return session.scalar(select(PrompterRow).where(PrompterRow.name == name))


def _taken(name: str) -> AlreadyExists:
    return AlreadyExists(f"There is a prompter {name!r} already; remove it first, or choose another name.")


def _missing(name: str) -> NotFound:
    return NotFound(f"There is no prompter {name!r} among those that users added.")


def _to_proto(row: PrompterRow) -> prompter_pb2.Prompter:
    return prompter_pb2.Prompter(
        name=row.name,
        licence=row.licence,
        encoder=prompter_pb2.PrompterFile(sha256=row.encoder_sha256, size=row.encoder_size),
        decoder=prompter_pb2.PrompterFile(sha256=row.decoder_sha256, size=row.decoder_size),
        created_at=timestamp(row.created_at),
    )
