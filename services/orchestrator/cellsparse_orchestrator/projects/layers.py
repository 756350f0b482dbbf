"""Layers: what models predicted for images, as label tiles."""

import secrets
from dataclasses import dataclass
from functools import partial

import numpy as np
from sqlalchemy import Delete, delete, insert, select
from sqlalchemy.orm import Session

from cellsparse_common.imaging.scores import Scores
from cellsparse_common.imaging.types import Labels
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.clock import new_id, now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import LabelTileRow, LayerRow
from cellsparse_orchestrator.projects import label_stats
from cellsparse_orchestrator.projects.image_locks import ImageLocks
from cellsparse_orchestrator.projects.label_files import window
from cellsparse_orchestrator.projects.label_numbers import Numbers, deflate
from cellsparse_orchestrator.projects.label_tiles import delete_quietly, put_all
from cellsparse_orchestrator.projects.rows import find_image, find_layer, layer_proto
from cellsparse_orchestrator.projects.tiling import Extent, Place
from cellsparse_proto.v1 import project_pb2


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """What predicted a layer; either a model or a run that was training."""

    model_id: str = ""
    run_id: str = ""
    step: int = 0


class Layers:
    """The table of layers, and their tiles.

    Args:
        database: The tables.
        store: Receives tiles.
    """

    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store
        self._locks = ImageLocks()

    def save(self, image_id: str, predictor: Predictor, labels: Labels, scores: Scores) -> project_pb2.Layer:
        """Keep a prediction in place of the one that the same model or run made before.

        Args:
            image_id: The image.
            predictor: What predicted it.
            labels: Axes YX or ZYX, of the image's size: 0 nothing, n > 0 cell n.
            scores: How sure it is of each cell, by the cell's number.

        Raises:
            NotFound: The image has been deleted.
        """
        key = f"{image_id}/{predictor.model_id}/{predictor.run_id}"
        with self._locks.hold(key), self._database.publishing.hold():
            with self._database.read() as session:
                image = find_image(session, image_id)
                project_id, extent = (
                    image.project_id,
                    Extent(height=image.height, width=image.width, planes=image.planes),
                )
                known = _find(session, image_id, predictor)
                layer_id = known.id if known is not None else new_id("ly")
            tiles = _tiles(labels, extent)
            names = {place: f"z{place.plane}-x{place.x}-y{place.y}-{secrets.token_hex(4)}" for place in tiles}
            prefix = keys.label_tiles_prefix(project_id, image_id, layer_id)
            old = list(self._store.list(prefix)) if known is not None else []
            located = {place: keys.label_tile(project_id, image_id, layer_id, name) for place, name in names.items()}
            put_all(self._store, ((located[place], partial(deflate, tile)) for place, tile in tiles.items()))
            tables = {place: label_stats.measure(tile) for place, tile in tiles.items()}
            with self._database.write() as session:
                find_image(session, image_id, lock=True)
                row = _find(session, image_id, predictor)
                if row is None:
                    row = LayerRow(
                        id=layer_id,
                        image_id=image_id,
                        model_id=predictor.model_id,
                        run_id=predictor.run_id,
                        revision=0,
                    )
                    session.add(row)
                row.step, row.created_at, row.revision = predictor.step, now(), row.revision + 1
                row.cells = len(label_stats.areas(tables.values()))
                row.scores = label_stats.pack_scores(scores)
                session.execute(_delete_tiles(image_id, row.id))
                if tiles:
                    session.execute(
                        insert(LabelTileRow),
                        [_values(image_id, row, place, names[place], tiles[place], tables[place]) for place in tiles],
                    )
                session.flush()
                layer = layer_proto(row)
            delete_quietly(self._store, old)
            return layer

    def list(self, image_id: str) -> list[project_pb2.Layer]:
        """Return all layers of an image, newest first; raises NotFound."""
        query = select(LayerRow).where(LayerRow.image_id == image_id)
        with self._database.read() as session:
            find_image(session, image_id)
            rows = session.scalars(query.order_by(LayerRow.created_at.desc(), LayerRow.number.desc()))
            return [layer_proto(row) for row in rows]

    def remove(self, layer_id: str) -> None:
        """Delete a layer; raises NotFound."""
        with self._database.write() as session:
            row = find_layer(session, layer_id)
            image = find_image(session, row.image_id, lock=True)
            prefix = keys.label_tiles_prefix(image.project_id, image.id, layer_id)
            session.execute(_delete_tiles(image.id, layer_id))
            session.delete(row)
        delete_quietly(self._store, self._store.list(prefix))


def _find(session: Session, image_id: str, predictor: Predictor) -> LayerRow | None:
    return session.scalar(
        select(LayerRow).where(
            LayerRow.image_id == image_id,
            LayerRow.model_id == predictor.model_id,
            LayerRow.run_id == predictor.run_id,
        )
    )


def _tiles(labels: Labels, extent: Extent) -> dict[Place, Numbers]:
    """Return the tiles that hold a cell: label numbers n + 1, and 0 where nothing is."""
    found = {}
    for place in extent.places():
        part = window(labels, place)
        if (part > 0).any():
            found[place] = np.where(part > 0, part + 1, 0).astype(np.uint32)
    return found


def _delete_tiles(image_id: str, layer_id: str) -> Delete:
    return delete(LabelTileRow).where(LabelTileRow.image_id == image_id, LabelTileRow.layer_id == layer_id)


def _values(
    image_id: str, layer: LayerRow, place: Place, name: str, tile: Numbers, table: label_stats.CellTable
) -> dict[str, object]:
    return {
        "image_id": image_id,
        "layer_id": layer.id,
        "plane": place.plane,
        "y": place.y,
        "x": place.x,
        "revision": layer.revision,
        "author": "",
        "others_revision": 0,
        "object": name,
        "labelled": int(np.count_nonzero(tile)),
        "cells": label_stats.pack(table),
    }
