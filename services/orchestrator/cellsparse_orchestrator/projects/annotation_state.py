"""What an edit of an annotation reads: the image, and the tiles that it is about to change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from cellsparse_orchestrator.db.tables import LabelTileRow
from cellsparse_orchestrator.projects import label_stats
from cellsparse_orchestrator.projects.label_tiles import LabelImage, TileRef, label_image
from cellsparse_orchestrator.projects.rows import find_image
from cellsparse_orchestrator.projects.tiling import Place

_PLACES_AT_ONCE = 200


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
    labelled_pixels: int
    tiles: Mapping[Place, Tile]
    """The tiles of the edit that have a row."""


def read_before(session: Session, image_id: str, places: Iterable[Place]) -> Before:
    """Return an annotation and some of its tiles; raises NotFound."""
    row = find_image(session, image_id)
    tiles = {
        Place(plane=found.plane, y=found.y, x=found.x): Tile(
            ref=TileRef(revision=found.revision, object=found.object),
            author=found.author,
            others_revision=found.others_revision,
            labelled=found.labelled,
            cells=label_stats.unpack(found.cells),
        )
        for found in tile_rows(session, image_id, places)
    }
    return Before(
        image=label_image(row, None, {place: tile.ref for place, tile in tiles.items()}),
        next_label=row.next_label,
        labelled_pixels=row.labelled_pixels,
        tiles=tiles,
    )


def tile_rows(session: Session, image_id: str, places: Iterable[Place]) -> list[LabelTileRow]:
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
