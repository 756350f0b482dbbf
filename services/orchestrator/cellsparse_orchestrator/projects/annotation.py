"""Change annotations: edits with revisions, undo and redo by author.

An edit writes its new tiles to the store, then changes all rows in one short transaction, then removes the tiles that
it replaced. Whenever it is killed, the rows refer to whole tiles: of the old state or of the new one.
"""

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import and_, delete, or_, select
from sqlalchemy.orm import Session

from cellsparse_common.errors import Aborted, AlreadyExists
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AnnotationEditRow, LabelTileRow
from cellsparse_orchestrator.projects import label_stats
from cellsparse_orchestrator.projects.cell_areas import CellAreas
from cellsparse_orchestrator.projects.image_locks import ImageLocks
from cellsparse_orchestrator.projects.label_numbers import KEEP, Numbers, deflate
from cellsparse_orchestrator.projects.label_tiles import LabelImage, LabelTiles, TileRef, delete_quietly, label_image
from cellsparse_orchestrator.projects.patches import (
    Change,
    Difference,
    Piece,
    check_patches,
    decode_patches,
    difference,
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
_PLACES_AT_ONCE = 200
_LARGE = 2**15
"""Changed pixels from which a tile's cells are quicker measured all anew."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """What the database says about a tile of an annotation before an edit."""

    ref: TileRef
    author: str
    others_revision: int
    labelled: int
    cells: label_stats.CellTable

    def changed_by_others(self, author: str) -> int:
        """Return the revision of the newest change by anyone but an author; "" is nobody's name."""
        return self.others_revision if author and author == self.author else self.ref.revision


@dataclass(frozen=True, kw_only=True)
class Before:
    """An annotation before an edit."""

    image: LabelImage
    next_label: int
    cells: int
    labelled_pixels: int
    tiles: Mapping[Place, Tile]
    """The tiles of the edit that have a row."""


@dataclass(kw_only=True)
class Edited:
    """New tiles that are in the store, but not in the database yet."""

    revision: int
    rows: dict[Place, Tile] = field(default_factory=dict)
    before: list[project_pb2.LabelPatch] = field(default_factory=list)
    after: list[project_pb2.LabelPatch] = field(default_factory=list)
    now: list[Piece] = field(default_factory=list)
    """What the changed places hold now, without gaps."""
    old_keys: list[str] = field(default_factory=list)
    new_tiles: dict[str, Numbers] = field(default_factory=dict)
    areas: dict[int, int] = field(default_factory=dict)
    """How many pixels more each cell has."""
    labelled: int = 0
    """How many more pixels are labelled."""


class Annotations:
    """Changes annotations.

    Args:
        database: The tables.
        store: Receives tiles.
        tiles: Reads tiles.
    """

    def __init__(self, database: Database, store: ObjectStore, tiles: LabelTiles) -> None:
        self._database = database
        self._store = store
        self._tiles = tiles
        self._locks = ImageLocks()
        self._areas = CellAreas()

    def edit(self, request: project_pb2.EditAnnotationRequest) -> project_pb2.EditAnnotationResponse:
        """Apply patches.

        Raises:
            NotFound: There is no such image.
            InvalidArgument: A patch leaves the image, is damaged, or holds a number that no cell has.
            Aborted: Someone else changed a tile of a patch after the base revision.
            AlreadyExists: The request id belongs to an edit with other content.
        """
        with self._locks.hold(request.image_id):
            known = self._known(request)
            if known is not None:
                return known
            with self._database.read() as session:
                check_patches(request.patches, extent_of(find_image(session, request.image_id)))
            before = self._read(request.image_id, {place for patch in request.patches for place in _touched(patch)})
            _refuse_conflict(before, request)
            pieces, new_cells = decode_patches(request.patches, before.next_label)
            edited = self._apply(before, write_changes(pieces), request.author)
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
        with self._locks.hold(image_id):
            before = self._read(image_id, set(changes))
            if before.next_label != base:
                raise Aborted("The annotation was changed meanwhile; try again.")
            edited = self._apply(before, changes, author)
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
        return project_pb2.ListCellsResponse(cells=label_stats.list_cells(found), revision=revision)

    def _step(self, image_id: str, author: str, *, undo: bool) -> tuple[int, list[project_pb2.LabelPatch]]:
        """Undo or redo: the first step that has an effect, with all before it."""
        with self._locks.hold(image_id):
            while True:
                entry = self._next_step(image_id, author, undo=undo)
                if entry is None:
                    return self._read(image_id, set()).image.revision, []
                earlier, later = unpack_pieces(entry.before), unpack_pieces(entry.after)
                pairs = list(zip(later, earlier, strict=True) if undo else zip(earlier, later, strict=True))
                changes = replace_changes(pairs)
                before = self._read(image_id, set(changes))
                edited = self._apply(before, changes, author)
                self._commit_step(before, edited, entry.number, undo=undo)
                if edited.now:
                    return edited.revision, [piece.patch() for piece in edited.now]

    def _next_step(self, image_id: str, author: str, *, undo: bool) -> AnnotationEditRow | None:
        query = select(AnnotationEditRow).where(
            AnnotationEditRow.image_id == image_id,
            AnnotationEditRow.author == author,
            AnnotationEditRow.undone.is_(not undo),
        )
        order = AnnotationEditRow.number.desc() if undo else AnnotationEditRow.number
        with self._database.read() as session:
            find_image(session, image_id)
            entry = session.scalar(query.order_by(order).limit(1))
            session.expunge_all()
            return entry

    def _known(self, request: project_pb2.EditAnnotationRequest) -> project_pb2.EditAnnotationResponse | None:
        """Return the answer to an earlier call with this request id; None if there was none."""
        if not request.request_id:
            return None
        query = select(AnnotationEditRow).where(
            AnnotationEditRow.image_id == request.image_id, AnnotationEditRow.request_id == request.request_id
        )
        with self._database.read() as session:
            entry = session.scalar(query)
            if entry is None:
                return None
            if entry.request_sha256 != _digest(request):
                raise AlreadyExists(
                    f"request_id {request.request_id!r} made revision {entry.revision} with other content; use a new "
                    "request_id.",
                    "request_id",
                )
            return _answer(entry)

    def _read(self, image_id: str, places: Iterable[Place]) -> Before:
        """Return an annotation and some of its tiles; raises NotFound."""
        wanted = set(places)
        tiles: dict[Place, Tile] = {}
        with self._database.read() as session:
            row = find_image(session, image_id)
            for found in _tile_rows(session, image_id, wanted):
                place = Place(plane=found.plane, y=found.y, x=found.x)
                tiles[place] = Tile(
                    ref=TileRef(revision=found.revision, object=found.object),
                    author=found.author,
                    others_revision=found.others_revision,
                    labelled=found.labelled,
                    cells=label_stats.unpack(found.cells),
                )
            image = label_image(row, None, {place: tile.ref for place, tile in tiles.items()})
            return Before(
                image=image,
                next_label=row.next_label,
                cells=row.cells,
                labelled_pixels=row.labelled_pixels,
                tiles=tiles,
            )

    def _apply(self, before: Before, changes: Mapping[Place, Change], author: str) -> Edited:
        """Write the tiles that changes make to the store, one after the other."""
        edited = Edited(revision=before.image.revision + 1)
        for place in sorted(changes):
            old = self._tiles.tile(before.image, place)
            new = old.copy()
            changes[place](new)
            changed = difference(place, old, new)
            if changed is not None:
                self._add_tile(before, edited, place, new, changed, author)
        if not edited.rows:
            edited.revision = before.image.revision
        return edited

    def _add_tile(
        self, before: Before, edited: Edited, place: Place, new: Numbers, changed: Difference, author: str
    ) -> None:
        known = before.tiles.get(place)
        old_table = known.cells if known else np.zeros((0, 6), np.uint32)
        if changed.after.numbers.size > _LARGE:
            table = label_stats.measure(new)
        else:
            involved = np.union1d(changed.before.numbers, changed.after.numbers)
            table = label_stats.remeasure(old_table, new, (int(label) for label in involved if label != KEEP))
        labelled = int(np.count_nonzero(new))
        name = ""
        if labelled:
            name = f"z{place.plane}-x{place.x}-y{place.y}-r{edited.revision}-{secrets.token_hex(4)}"
            self._store.put(before.image.key(name), deflate(new))
            edited.new_tiles[before.image.key(name)] = new
        edited.rows[place] = Tile(
            ref=TileRef(revision=edited.revision, object=name),
            author=author,
            others_revision=known.changed_by_others(author) if known else 0,
            labelled=labelled,
            cells=table,
        )
        edited.before.append(changed.before.patch())
        edited.after.append(changed.after.patch())
        edited.now.append(
            Piece(place=place, top=changed.after.top, left=changed.after.left, numbers=changed.after.window(new).copy())
        )
        if known and known.ref.object:
            edited.old_keys.append(before.image.key(known.ref.object))
        edited.labelled += labelled - (known.labelled if known else 0)
        for sign, rows in ((-1, old_table), (1, table)):
            for label, area in rows[:, :2].tolist():
                edited.areas[label] = edited.areas.get(label, 0) + sign * area

    def _commit(self, before: Before, edited: Edited, entry: AnnotationEditRow) -> None:
        """Make an edit visible in one transaction; an edit that changed nothing leaves no trace."""
        if not edited.rows and not entry.new_cells:
            return
        entry.before, entry.after = pack_patches(edited.before), pack_patches(edited.after)
        mine = (AnnotationEditRow.image_id == entry.image_id, AnnotationEditRow.author == entry.author)
        with self._database.write() as session:
            areas = self._change_rows(session, before, edited, entry.new_cells)
            session.execute(delete(AnnotationEditRow).where(*mine, AnnotationEditRow.undone.is_(True)))
            session.add(entry)
            session.flush()
            numbers = select(AnnotationEditRow.number).where(*mine).order_by(AnnotationEditRow.number.desc())
            last = session.scalar(numbers.offset(STEPS).limit(1))
            if last is not None:
                session.execute(delete(AnnotationEditRow).where(*mine, AnnotationEditRow.number <= last))
        self._settle(before, edited, areas)

    def _commit_step(self, before: Before, edited: Edited, number: int, *, undo: bool) -> None:
        """Make an undo or redo visible; a later step then regards only the pixels that it changed."""
        with self._database.write() as session:
            areas = self._change_rows(session, before, edited, 0) if edited.rows else None
            entry = session.scalar(select(AnnotationEditRow).where(AnnotationEditRow.number == number))
            if entry is not None:
                entry.undone = undo
                there, then = pack_patches(edited.before), pack_patches(edited.after)
                entry.after, entry.before = (there, then) if undo else (then, there)
        if areas is not None:
            self._settle(before, edited, areas)

    def _change_rows(self, session: Session, before: Before, edited: Edited, new_cells: int) -> dict[int, int]:
        """Change image and tile rows; return the area of each cell."""
        row = find_image(session, before.image.image_id, lock=True)
        if row.revision != before.image.revision:  # cannot happen while this process owns the database
            raise Aborted("The annotation was changed meanwhile; try again.")
        areas = self._new_areas(session, before, edited)
        row.revision = edited.revision
        row.next_label = before.next_label + new_cells
        row.labelled_pixels = before.labelled_pixels + edited.labelled
        row.cells = len(areas)
        row.diameter = label_stats.diameter(areas.values(), stack=row.planes > 1)
        found = {
            Place(plane=tile.plane, y=tile.y, x=tile.x): tile
            for tile in _tile_rows(session, before.image.image_id, edited.rows)
        }
        for place, tile in edited.rows.items():
            target = found.get(place)
            if target is None:
                target = LabelTileRow(
                    image_id=before.image.image_id, layer_id="", plane=place.plane, y=place.y, x=place.x
                )
                session.add(target)
            target.revision, target.object = tile.ref.revision, tile.ref.object
            target.author, target.others_revision = tile.author, tile.others_revision
            target.labelled, target.cells = tile.labelled, label_stats.pack(tile.cells)
        session.flush()
        return areas

    def _new_areas(self, session: Session, before: Before, edited: Edited) -> dict[int, int]:
        kept = self._areas.get(before.image.image_id, before.image.revision)
        if kept is None:
            query = select(LabelTileRow.cells).where(
                LabelTileRow.image_id == before.image.image_id, LabelTileRow.layer_id == ""
            )
            kept = label_stats.areas(label_stats.unpack(data) for data in session.scalars(query))
        areas = dict(kept)
        for label, more in edited.areas.items():
            area = areas.get(label, 0) + more
            if area:
                areas[label] = area
            else:
                areas.pop(label, None)
        return areas

    def _settle(self, before: Before, edited: Edited, areas: Mapping[int, int]) -> None:
        """After the commit: remember what was written, remove what it replaced."""
        self._areas.put(before.image.image_id, edited.revision, areas)
        for key, tile in edited.new_tiles.items():
            self._tiles.cache.put(key, tile)
        for key in edited.old_keys:
            self._tiles.cache.drop(key)
        delete_quietly(self._store, edited.old_keys)


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


def _tile_rows(session: Session, image_id: str, places: Iterable[Place]) -> list[LabelTileRow]:
    """Return the rows of some tiles of an annotation."""
    wanted = set(places)
    query = select(LabelTileRow).where(LabelTileRow.image_id == image_id, LabelTileRow.layer_id == "")
    if 0 < len(wanted) <= _PLACES_AT_ONCE:
        query = query.where(
            or_(
                *(
                    and_(LabelTileRow.plane == place.plane, LabelTileRow.y == place.y, LabelTileRow.x == place.x)
                    for place in sorted(wanted)
                )
            )
        )
    elif not wanted:
        return []
    rows = session.scalars(query)
    return [row for row in rows if Place(plane=row.plane, y=row.y, x=row.x) in wanted]


def _answer(entry: AnnotationEditRow) -> project_pb2.EditAnnotationResponse:
    new = range(entry.first_label, entry.first_label + entry.new_cells)
    return project_pb2.EditAnnotationResponse(revision=entry.revision, new_labels=new)


def _digest(request: project_pb2.EditAnnotationRequest) -> str:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
