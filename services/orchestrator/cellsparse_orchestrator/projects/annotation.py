"""Change annotations: edits with revisions, undo and redo by author.

An edit writes its new tiles to the store, then changes all rows in one short transaction, then removes the tiles that
it replaced. Whenever it is killed, the rows refer to whole tiles: of the old state or of the new one.
"""

import hashlib
from collections.abc import Iterable, Mapping

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import Session

from cellsparse_common.errors import Aborted, AlreadyExists
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AnnotationEditRow, LabelTileRow
from cellsparse_orchestrator.projects import label_stats
from cellsparse_orchestrator.projects.annotation_state import Before, read_before
from cellsparse_orchestrator.projects.annotation_writer import AnnotationWriter, Edited
from cellsparse_orchestrator.projects.image_locks import ImageLocks
from cellsparse_orchestrator.projects.label_tiles import LabelTiles
from cellsparse_orchestrator.projects.patches import (
    Change,
    check_patches,
    decode_patches,
    pack_patches,
    replace_changes,
    unpack_pieces,
    write_changes,
)
from cellsparse_orchestrator.projects.rows import extent_of, find_image, find_layer
from cellsparse_orchestrator.projects.tiling import Place, covering
from cellsparse_proto.v1 import project_pb2

STEPS = 100
"""Edits of an author that can be taken back."""
STEPS_OF_ALL = 5000
"""Edits of an image that can be taken back: a browser's tab is an author, and old tabs never come back."""
_TIDY_EVERY = 50


class Annotations:
    """Changes annotations.

    Args:
        database: The tables.
        store: Receives tiles.
        tiles: Reads tiles.
    """

    def __init__(self, database: Database, store: ObjectStore, tiles: LabelTiles) -> None:
        self._database = database
        self._writer = AnnotationWriter(store, tiles)
        self._locks = ImageLocks()

    def edit(self, request: project_pb2.EditAnnotationRequest) -> project_pb2.EditAnnotationResponse:
        """Apply patches.

        Raises:
            NotFound: There is no such image.
            InvalidArgument: A patch leaves the image, is damaged, or holds a number that no cell has.
            Aborted: Someone else changed a tile of a patch after the base revision.
            AlreadyExists: The request id belongs to an edit with other content.
        """
        with self._locks.hold(request.image_id), self._database.publishing.hold():
            with self._database.read() as session:
                known = _known(session, request)
                if known is not None:
                    return known
                check_patches(request.patches, extent_of(find_image(session, request.image_id)))
                touched = {place for patch in request.patches for place in _touched(patch)}
                before = read_before(session, request.image_id, touched)
            _refuse_conflict(before, request)
            pieces, new_cells = decode_patches(request.patches, before.next_label)
            edited = self._writer.apply(before, write_changes(pieces), request.author)
            entry = AnnotationEditRow(
                image_id=request.image_id,
                author=request.author,
                request_id=request.request_id or None,
                request_sha256=_digest(request),
                revision=edited.revision,
                first_label=before.next_label,
                new_cells=new_cells,
                undone=False,
            )
            self._commit(before, edited, entry)
            return _answer(entry)

    def add(self, image_id: str, author: str, changes: Mapping[Place, Change], new_cells: int, base: int) -> None:
        """Apply changes that were computed elsewhere.

        Args:
            image_id: The image.
            author: Who edits.
            changes: For each tile its change.
            new_cells: How many new cells the changes number from `base`.
            base: The image's next label number when the changes were made; raises Aborted if it is another one now.
        """
        with self._locks.hold(image_id), self._database.publishing.hold():
            with self._database.read() as session:
                before = read_before(session, image_id, changes)
            if before.next_label != base:
                raise Aborted("The annotation was changed meanwhile; try again.")
            edited = self._writer.apply(before, changes, author)
            entry = AnnotationEditRow(
                image_id=image_id,
                author=author,
                request_id=None,
                request_sha256="",
                revision=edited.revision,
                first_label=base,
                new_cells=new_cells,
                undone=False,
            )
            self._commit(before, edited, entry)

    def next_label(self, image_id: str) -> int:
        """Return the label number of the next new cell; raises NotFound."""
        with self._database.read() as session:
            return find_image(session, image_id).next_label

    def undo(self, image_id: str, author: str) -> project_pb2.UndoEditResponse:
        """Take back an author's newest edit that still shows; raises NotFound."""
        revision, patches = self._step(image_id, author, undo=True)
        return project_pb2.UndoEditResponse(revision=revision, patches=patches)

    def redo(self, image_id: str, author: str) -> project_pb2.RedoEditResponse:
        """Repeat the edit that an author took back last; raises NotFound."""
        revision, patches = self._step(image_id, author, undo=False)
        return project_pb2.RedoEditResponse(revision=revision, patches=patches)

    def cells(self, request: project_pb2.ListCellsRequest) -> project_pb2.ListCellsResponse:
        """List the cells of an annotation or of a layer; raises NotFound."""
        query = select(LabelTileRow.plane, LabelTileRow.y, LabelTileRow.x, LabelTileRow.cells)
        query = query.where(LabelTileRow.image_id == request.image_id, LabelTileRow.layer_id == request.layer_id)
        with self._database.read() as session:
            image = find_image(session, request.image_id)
            layer = find_layer(session, request.layer_id, request.image_id) if request.layer_id else None
            found = [
                (Place(plane=plane, y=y, x=x), label_stats.unpack(data)) for plane, y, x, data in session.execute(query)
            ]
            revision = image.revision if layer is None else layer.revision
            scores = None if layer is None else label_stats.unpack_scores(layer.scores)
        return project_pb2.ListCellsResponse(cells=label_stats.list_cells(found, scores), revision=revision)

    def _step(self, image_id: str, author: str, *, undo: bool) -> tuple[int, list[project_pb2.LabelPatch]]:
        """Undo or redo: the first step that has an effect, with all before it."""
        with self._locks.hold(image_id), self._database.publishing.hold():
            while True:
                with self._database.read() as session:
                    entry = _next_step(session, image_id, author, undo=undo)
                    if entry is None:
                        return find_image(session, image_id).revision, []
                    earlier, later = unpack_pieces(entry.before), unpack_pieces(entry.after)
                    changes = replace_changes(zip(*((later, earlier) if undo else (earlier, later)), strict=True))
                    before = read_before(session, image_id, changes)
                edited = self._writer.apply(before, changes, author, show=True)
                self._commit_step(before, edited, entry.number, undo=undo)
                if edited.now:
                    return edited.revision, [piece.patch() for piece in edited.now]

    def _commit(self, before: Before, edited: Edited, entry: AnnotationEditRow) -> None:
        """Make an edit visible in one transaction; an edit that changed nothing leaves no trace."""
        if not edited.rows and not entry.new_cells:
            return
        entry.before, entry.after = pack_patches(edited.before), pack_patches(edited.after)
        mine = (AnnotationEditRow.image_id == entry.image_id, AnnotationEditRow.author == entry.author)
        with self._database.write() as session:
            areas = self._writer.change_rows(session, before, edited, entry.new_cells)
            session.execute(delete(AnnotationEditRow).where(*mine, AnnotationEditRow.undone.is_(True)))
            session.add(entry)
            session.flush()
            _forget(session, STEPS, *mine)
            if edited.revision % _TIDY_EVERY == 0:
                _forget(session, STEPS_OF_ALL, mine[0])
        self._writer.settle(before, edited, areas)

    def _commit_step(self, before: Before, edited: Edited, number: int, *, undo: bool) -> None:
        """Make an undo or redo visible; a later step then regards only the pixels that it changed."""
        with self._database.write() as session:
            areas = self._writer.change_rows(session, before, edited, 0) if edited.rows else None
            entry = session.scalar(select(AnnotationEditRow).where(AnnotationEditRow.number == number))
            if entry is not None:
                entry.undone = undo
                there, then = pack_patches(edited.before), pack_patches(edited.after)
                entry.after, entry.before = (there, then) if undo else (then, there)
        if areas is not None:
            self._writer.settle(before, edited, areas)


def _forget(session: Session, kept: int, *which: ColumnElement[bool]) -> None:
    """Delete all but the newest of some edits from the log."""
    numbers = select(AnnotationEditRow.number).where(*which).order_by(AnnotationEditRow.number.desc())
    last = session.scalar(numbers.offset(kept).limit(1))
    if last is not None:
        session.execute(delete(AnnotationEditRow).where(*which, AnnotationEditRow.number <= last))


def _next_step(session: Session, image_id: str, author: str, *, undo: bool) -> AnnotationEditRow | None:
    """Return the edit that an author would take back, or repeat, next; None if there is none."""
    query = select(AnnotationEditRow).where(
        AnnotationEditRow.image_id == image_id,
        AnnotationEditRow.author == author,
        AnnotationEditRow.undone.is_(not undo),
    )
    order = AnnotationEditRow.number.desc() if undo else AnnotationEditRow.number
    return session.scalar(query.order_by(order).limit(1))


def _known(session: Session, request: project_pb2.EditAnnotationRequest) -> project_pb2.EditAnnotationResponse | None:
    """Return the answer to an earlier call with this request id; None if there was none."""
    if not request.request_id:
        return None
    entry = session.scalar(
        select(AnnotationEditRow).where(
            AnnotationEditRow.image_id == request.image_id, AnnotationEditRow.request_id == request.request_id
        )
    )
    if entry is None:
        return None
    if entry.request_sha256 != _digest(request):
        raise AlreadyExists(
            f"request_id {request.request_id!r} made revision {entry.revision} with other content; use a new "
            "request_id.",
            "request_id",
        )
    return _answer(entry)


def _touched(patch: project_pb2.LabelPatch) -> Iterable[Place]:
    return covering(patch.plane, patch.y, patch.x, patch.height, patch.width)


def _refuse_conflict(before: Before, request: project_pb2.EditAnnotationRequest) -> None:
    for place, tile in sorted(before.tiles.items()):
        if tile.changed_by_others(request.author) > request.base_revision:
            raise Aborted(
                f"Someone else changed the tile x={place.x}, y={place.y} of plane {place.plane} in revision "
                f"{tile.changed_by_others(request.author)}, after base_revision {request.base_revision}; fetch it "
                "again and repeat the change."
            )


def _answer(entry: AnnotationEditRow) -> project_pb2.EditAnnotationResponse:
    new = range(entry.first_label, entry.first_label + entry.new_cells)
    return project_pb2.EditAnnotationResponse(revision=entry.revision, new_labels=new)


def _digest(request: project_pb2.EditAnnotationRequest) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
