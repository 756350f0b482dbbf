"""Find what nothing refers to, but for blobs: folders of the store without their row, and superfluous checkpoints."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, islice
from typing import Any

from sqlalchemy import or_, select, true
from sqlalchemy.orm import Session

from cellsparse_common.errors import NotFound
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import (
    DatasetRow,
    LabelTileRow,
    LayerRow,
    ModelRow,
    ProjectImageRow,
    ProjectLimitsRow,
    ProjectRow,
    PrompterRow,
    RunRow,
    StudyRow,
)
from cellsparse_proto.v1 import admin_pb2

BLOBS = admin_pb2.COLLECT_KIND_BLOBS
DATASETS = admin_pb2.COLLECT_KIND_DATASETS
RUNS = admin_pb2.COLLECT_KIND_RUNS
CHECKPOINTS = admin_pb2.COLLECT_KIND_CHECKPOINTS
MODELS = admin_pb2.COLLECT_KIND_MODELS
STUDIES = admin_pb2.COLLECT_KIND_STUDIES
PROJECTS = admin_pb2.COLLECT_KIND_PROJECTS
LABEL_TILES = admin_pb2.COLLECT_KIND_LABEL_TILES
PROMPTERS = admin_pb2.COLLECT_KIND_PROMPTERS
TRANSFERS = admin_pb2.COLLECT_KIND_TRANSFERS
_FINAL = [run_states.state_name(state) for state in run_states.FINAL]
_BATCH = 200
Seen = Callable[[], None]
"""Called for each object that is looked at."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Objects that belong together, and that nothing refers to."""

    kind: int
    """Proto `CollectKind`."""
    prefix: str
    """Of their keys, with "/" at its end; else the key of the one object."""
    id: str
    """Of the dataset, run, model, study, image, prompter or call; of a blob its SHA-256, of a label tile its key."""
    but_not: str = ""
    """Prefix of keys that do not belong to it."""
    step: int = 0
    """Of a checkpoint."""


class Leftovers:
    """Compares the store with the tables.

    Args:
        store: The store.
        database: The tables.
        expired: What was deleted before this time counts as gone.
        now: The time.
        checkpoint_days: Days after which a run that has ended keeps its best and last checkpoint only, unless its
            project has another number.
    """

    def __init__(
        self, store: ObjectStore, database: Database, *, expired: datetime, now: datetime, checkpoint_days: float
    ) -> None:
        self._store = store
        self._database = database
        self._expired = expired
        self._now = now
        self._checkpoint_days = checkpoint_days

    def find(self, kind: int, seen: Seen) -> Iterator[Leftover]:
        """Yield the leftovers of a kind; runs yield their models and checkpoints as well, images their label tiles."""
        if kind == DATASETS:
            yield from self._without_row(DATASETS, DatasetRow, keys.DATASETS, seen)
        elif kind == STUDIES:
            yield from self._without_row(STUDIES, StudyRow, keys.STUDIES, seen)
        elif kind == RUNS:
            yield from self._of_runs(seen)
        elif kind == PROJECTS:
            yield from self._of_projects(seen)
        elif kind == PROMPTERS:
            yield from self._without_row(PROMPTERS, PrompterRow, keys.PROMPTERS, seen)
        elif kind == TRANSFERS:
            yield from self._of_calls(seen)

    def still(self, left: Leftover) -> bool:
        """Whether nothing refers to a leftover now; asked while nobody publishes."""
        with self._database.read() as session:
            if left.kind == DATASETS:
                return not _there(session, DatasetRow, left.id)
            if left.kind == STUDIES:
                return not _there(session, StudyRow, left.id)
            if left.kind == PROJECTS:
                return not _there(session, ProjectImageRow, left.id)
            if left.kind == PROMPTERS:
                return not _there(session, PrompterRow, left.id)
            if left.kind == LABEL_TILES:
                return not _holds(session, left.prefix)
            if left.kind == TRANSFERS:
                return True
            if left.kind == RUNS:
                return not _there(session, RunRow, left.id)
            if left.kind == MODELS:
                makes = select(RunRow.id).where(RunRow.id == left.id, RunRow.state.not_in(_FINAL))
                return not _there(session, ModelRow, left.id) and session.scalar(makes) is None
        return left.step not in (self._kept_steps(left.id) or {left.step})

    def _without_row(self, kind: int, table: Any, prefix: str, seen: Seen) -> Iterator[Leftover]:
        found = (thing_id for thing_id, _ in self._grouped(prefix, 1, seen))
        while ids := list(islice(found, _BATCH)):
            known = self._known(table, ids)
            yield from (Leftover(kind=kind, prefix=f"{prefix}{each}/", id=each) for each in ids if each not in known)

    def _of_calls(self, seen: Seen) -> Iterator[Leftover]:
        """Yield what exists during a call only: nobody knows which calls go on, but none goes on for days."""
        for transfer_id, _ in self._grouped(keys.TRANSFERS, 1, seen):
            yield Leftover(kind=TRANSFERS, prefix=keys.transfer_prefix(transfer_id), id=transfer_id)
        for key in self._store.list(keys.UPLOADS):
            seen()
            model_id = key.removeprefix(keys.UPLOADS)
            if keys.ID_PATTERN.fullmatch(model_id):
                yield Leftover(kind=TRANSFERS, prefix=key, id=model_id)

    def _of_projects(self, seen: Seen) -> Iterator[Leftover]:
        """Yield images without their row, those of projects that are gone, and label tiles of others."""
        there = select(ProjectImageRow.id).join(ProjectRow, ProjectRow.id == ProjectImageRow.project_id)
        for path, names in self._grouped(keys.PROJECTS, 3, seen):  # <project>/images/<image>
            # One image after the other: there may be very many label tiles of each.
            prefix, image_id = f"{keys.PROJECTS}{path}/", path.rpartition("/")[2]
            tiles = _label_tiles(prefix, names)
            with self._database.read() as session:
                known = session.scalar(there.where(ProjectImageRow.id == image_id, self._stays(ProjectRow)))
            if known is None:
                yield Leftover(kind=PROJECTS, prefix=prefix, id=image_id)
            elif tiles:
                yield from self._replaced(image_id, tiles)

    def _replaced(self, image_id: str, tiles: Mapping[str, keys.LabelTileName]) -> Iterator[Leftover]:
        """Yield the label tiles of an image that no row holds, and coarse ones of which there is a newer one."""
        held = select(LabelTileRow.layer_id, LabelTileRow.object).where(LabelTileRow.image_id == image_id)
        with self._database.read() as session:
            rows = set(session.execute(held.where(LabelTileRow.object != "")).tuples())
            layers = {"", *session.scalars(select(LayerRow.id).where(LayerRow.image_id == image_id))}
        newest: dict[tuple[str, int, str], int] = {}
        for tile in tiles.values():
            place, revision = _coarse(tile)
            newest[place] = max(revision, newest.get(place, 0))
        for key, tile in tiles.items():
            place, revision = _coarse(tile)
            needed = (tile.layer_id, tile.name) in rows if tile.level == 0 else revision == newest[place]
            if tile.layer_id not in layers or not needed:
                yield Leftover(kind=LABEL_TILES, prefix=key, id=key)

    def _of_runs(self, seen: Seen) -> Iterator[Leftover]:
        found = ((run_id, _contents(names)) for run_id, names in self._grouped(keys.RUNS, 1, seen))
        while batch := dict(islice(found, _BATCH)):
            yield from self._of_batch(batch)

    def _of_batch(self, batch: "dict[str, _Contents]") -> Iterator[Leftover]:
        models = self._known(ModelRow, list(batch))
        query = select(RunRow.id, RunRow.state, RunRow.ended_at, ProjectLimitsRow.checkpoint_days)
        query = query.outerjoin(ProjectLimitsRow, ProjectLimitsRow.project_id == RunRow.project_id)
        with self._database.read() as session:
            rows = session.execute(query.where(RunRow.id.in_(batch), self._stays(RunRow)))
            runs = {run_id: (state, ended_at, days) for run_id, state, ended_at, days in rows.tuples()}
        for run_id, contents in batch.items():
            model = keys.model_prefix(run_id)
            state, ended_at, days = runs.get(run_id, ("", None, None))
            if not state and contents.others:
                yield Leftover(kind=RUNS, prefix=keys.run_prefix(run_id), id=run_id, but_not=model)
            if contents.model and run_id not in models and (not state or state in _FINAL):
                yield Leftover(kind=MODELS, prefix=model, id=run_id)
            patience = timedelta(days=self._checkpoint_days if days is None else days)
            if state in _FINAL and ended_at is not None and ended_at <= self._now - patience:
                yield from self._checkpoints(run_id, contents.steps)

    def _checkpoints(self, run_id: str, steps: Sequence[int]) -> Iterator[Leftover]:
        """Yield the checkpoints of a run that are neither its best nor its last."""
        if len(steps) < 2:
            return
        kept = self._kept_steps(run_id)
        for step in steps if kept else ():
            if step not in kept:
                prefix = keys.checkpoint_prefix(run_id, step)
                yield Leftover(kind=CHECKPOINTS, prefix=prefix, id=run_id, step=step)

    def _kept_steps(self, run_id: str) -> set[int]:
        """Return the steps of the best and the last checkpoint; empty if a pointer cannot be read."""
        pointers: tuple[keys.Pointer, ...] = ("LATEST", "BEST")
        kept: set[int] = set()
        for name in pointers:
            try:
                kept.add(int(json.loads(self._store.get(keys.checkpoint_pointer(run_id, name)))["step"]))
            except NotFound:
                continue
            except (ValueError, KeyError, TypeError):
                return set()
        return kept

    def _known(self, table: Any, ids: Sequence[str]) -> set[str]:
        with self._database.read() as session:
            return set(session.scalars(select(table.id).where(table.id.in_(ids), self._stays(table))))

    def _stays(self, table: Any) -> Any:
        if not hasattr(table, "deleted_at"):
            return true()
        return or_(table.deleted_at.is_(None), table.deleted_at > self._expired)

    def _grouped(self, prefix: str, depth: int, seen: Seen) -> Iterator[tuple[str, Iterator[str]]]:
        """Yield the folders so many levels below a prefix, as paths, with the names below each."""

        def parts() -> Iterator[tuple[str, str]]:
            for key in self._store.list(prefix):
                seen()
                split = key.removeprefix(prefix).split("/")
                if len(split) > depth and all(keys.ID_PATTERN.fullmatch(each) for each in split[:depth]):
                    yield "/".join(split[:depth]), "/".join(split[depth:])

        for path, group in groupby(parts(), key=lambda pair: pair[0]):
            yield path, (name for _, name in group)


@dataclass(frozen=True, kw_only=True)
class _Contents:
    """What there is of a run in the store."""

    model: bool
    others: bool
    steps: Sequence[int]
    """Of its checkpoints, in ascending order."""


def _contents(names: Iterator[str]) -> _Contents:
    model = others = False
    steps: set[int] = set()
    for name in names:
        if name.startswith("model/"):
            model = True
            continue
        others = True
        checkpoint = name.split("/")
        if len(checkpoint) > 2 and checkpoint[0] == "checkpoints" and checkpoint[1].isdecimal():
            steps.add(int(checkpoint[1]))
    return _Contents(model=model, others=others, steps=sorted(steps))


def _there(session: Session, table: Any, thing_id: str) -> bool:
    return session.scalar(select(table.id).where(table.id == thing_id)) is not None


def _label_tiles(prefix: str, names: Iterator[str]) -> dict[str, keys.LabelTileName]:
    """Return the label tiles among the names below a prefix, by their key."""
    found = ((f"{prefix}{name}", keys.parse_label_tile(f"{prefix}{name}")) for name in names)
    return {key: tile for key, tile in found if tile is not None}


def _coarse(tile: keys.LabelTileName) -> tuple[tuple[str, int, str], int]:
    """Return layer, level and place of a coarse label tile, and its revision; 0 if it is none."""
    place, _, revision = tile.name.rpartition("/")
    return (tile.layer_id, tile.level, place), int(revision) if revision.isdecimal() else 0


def _holds(session: Session, key: str) -> bool:
    """Whether a row holds a label tile of the full resolution. Coarse ones are made anew when they are missing."""
    tile = keys.parse_label_tile(key)
    if tile is None or tile.level:
        return False
    query = select(LabelTileRow.image_id).where(
        LabelTileRow.image_id == tile.image_id,
        LabelTileRow.layer_id == tile.layer_id,
        LabelTileRow.object == tile.name,
    )
    return session.scalar(query.limit(1)) is not None
