"""Write an edit of an annotation: its tiles to the store, then all rows at once, then remove what it replaced."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from cellsparse_common.errors import Aborted
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator.db.tables import LabelTileRow
from cellsparse_orchestrator.projects import label_stats
from cellsparse_orchestrator.projects.annotation_state import Before, Tile, tile_rows
from cellsparse_orchestrator.projects.cell_areas import CellAreas
from cellsparse_orchestrator.projects.label_numbers import KEEP, Numbers, deflate
from cellsparse_orchestrator.projects.label_tiles import LabelTiles, TileRef, delete_quietly
from cellsparse_orchestrator.projects.patches import Change, Difference, Piece, difference
from cellsparse_orchestrator.projects.rows import find_image
from cellsparse_orchestrator.projects.tiling import Place
from cellsparse_proto.v1 import project_pb2

_LARGE = 2**15
"""Changed pixels from which a tile's cells are quicker measured all anew."""
_CACHED = 16
"""Most new tiles that an edit leaves in the cache: those of a stroke, which is drawn on, and not all of an import."""


@dataclass(kw_only=True)
class Edited:
    """New tiles that are in the store, but not in the database yet."""

    revision: int
    rows: dict[Place, Tile] = field(default_factory=dict)
    before: list[project_pb2.LabelPatch] = field(default_factory=list)
    after: list[project_pb2.LabelPatch] = field(default_factory=list)
    now: list[Piece] = field(default_factory=list)
    """What the changed places hold now, without gaps; if asked for."""
    old_keys: list[str] = field(default_factory=list)
    new_tiles: dict[str, Numbers] = field(default_factory=dict)
    """The first new tiles by the key of their object."""
    areas: dict[int, int] = field(default_factory=dict)
    """How many pixels more each cell has."""
    labelled: int = 0
    """How many more pixels are labelled."""


class AnnotationWriter:
    """Writes edits; the caller lets one at a time in for each image.

    Args:
        store: Receives tiles.
        tiles: Reads tiles.
    """

    def __init__(self, store: ObjectStore, tiles: LabelTiles) -> None:
        self._store = store
        self._tiles = tiles
        self._areas = CellAreas()

    def apply(self, before: Before, changes: Mapping[Place, Change], author: str, *, show: bool = False) -> Edited:
        """Write the tiles that changes make to the store, one after the other.

        Args:
            before: The annotation, with the tiles of the changes.
            changes: For each tile its change.
            author: Who edits.
            show: Keep what the changed places hold then.
        """
        edited = Edited(revision=before.image.revision + 1)
        for place in sorted(changes):
            old = self._tiles.tile(before.image, place)
            new = old.copy()
            changes[place](new)
            changed = difference(place, old, new)
            if changed is not None:
                self._add_tile(before, edited, place, new, changed, author)
                if show:
                    window = changed.after.window(new).copy()
                    edited.now.append(
                        Piece(place=place, top=changed.after.top, left=changed.after.left, numbers=window)
                    )
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
            if len(edited.new_tiles) < _CACHED:
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
        if known and known.ref.object:
            edited.old_keys.append(before.image.key(known.ref.object))
        edited.labelled += labelled - (known.labelled if known else 0)
        for sign, rows in ((-1, old_table), (1, table)):
            for label, area in rows[:, :2].tolist():
                edited.areas[label] = edited.areas.get(label, 0) + sign * area

    def change_rows(self, session: Session, before: Before, edited: Edited, new_cells: int) -> dict[int, int]:
        """Change the rows of an image and its tiles; return the area of each cell.

        Raises:
            NotFound: The image has been deleted.
            Aborted: Someone else changed the annotation after `before` was read.
        """
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
            for tile in tile_rows(session, before.image.image_id, edited.rows)
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

    def settle(self, before: Before, edited: Edited, areas: Mapping[int, int]) -> None:
        """After the commit: remember what was written, remove what it replaced."""
        self._areas.put(before.image.image_id, edited.revision, areas)
        for key, tile in edited.new_tiles.items():
            self._tiles.cache.put(key, tile)
        for key in edited.old_keys:
            self._tiles.cache.drop(key)
        delete_quietly(self._store, edited.old_keys)
