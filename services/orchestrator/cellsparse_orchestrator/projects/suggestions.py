"""Suggestions: which cells of a project to mark next. Trainers predict, the sparsifier finds candidates and chooses."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from cellsparse_common.channels import MAX_CHANNELS
from cellsparse_common.errors import FailedPrecondition, NotFound
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_common.imaging.types import Labels
from cellsparse_common.storage import ObjectStore
from cellsparse_common.storage.blobs import read_blob
from cellsparse_orchestrator.catalogue.models import Models
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import ProjectImageRow, ProjectRunRow
from cellsparse_orchestrator.projects.label_files import read_labels
from cellsparse_orchestrator.projects.label_tiles import LabelTiles
from cellsparse_orchestrator.projects.rows import extent_of, find_project
from cellsparse_orchestrator.projects.suggestion_sample import (
    MOST_PIXELS,
    MOST_PREDICTED,
    WINDOW,
    Part,
    Source,
    known_parts,
    sample,
)
from cellsparse_proto.v1 import project_pb2, sparsifier_pb2, suggestion_pb2

COUNT = 8
"""Cells that are suggested where the request gives no number."""
IMAGES, PREDICTED_IMAGES, KNOWN_IMAGES = 64, 32, 32
"""Images that are looked at where the request gives no number, and further ones with annotated cells."""
NEWEST_RUNS = 50
"""So many of a project's newest runs are asked for a model."""
NEEDS_MODEL = (suggestion_pb2.SUGGESTION_METHOD_AUTO, suggestion_pb2.SUGGESTION_METHOD_ERRORS)

Pixels = npt.NDArray[np.generic]
Predict = Callable[[str, Pixels], Labels]
"""Predicts pixels (YX or YXC) with a model, by its id: 0 background, n > 0 cell n."""
Choose = Callable[[Iterator[sparsifier_pb2.SuggestCellsRequest]], sparsifier_pb2.SuggestCellsResponse]
"""Sends a stream to the sparsifier."""

Turn = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
TURNS: tuple[tuple[Turn, Turn], ...] = (
    (np.flipud, np.flipud),
    (np.fliplr, np.fliplr),
    (np.rot90, lambda array: np.rot90(array, -1)),
    (lambda array: np.rot90(array, -1), np.rot90),
)
"""How images are turned before they are predicted once more, and how the predictions are turned back."""


class Suggester:
    """Suggests what to mark next.

    Args:
        database: Holds images and runs.
        store: Holds images and annotations.
        tiles: Reads annotations.
        models: The table of models.
        max_pixels: Largest image that the other services take, pixels.
    """

    def __init__(
        self, database: Database, store: ObjectStore, tiles: LabelTiles, models: Models, max_pixels: int
    ) -> None:
        self._database = database
        self._store = store
        self._tiles = tiles
        self._models = models
        self._window = min(WINDOW, int(max_pixels**0.5))

    def suggest(
        self, request: project_pb2.SuggestRequest, predict: Predict, choose: Choose
    ) -> project_pb2.SuggestResponse:
        """Return suggestions.

        Raises:
            NotFound: There is no such project or model.
            FailedPrecondition: The project has no 2D image, or ERRORS is asked for without a model.
            CellsparseError: A service or the store failed.
        """
        sources = self._sources(request.project_id)
        method = request.method or suggestion_pb2.SUGGESTION_METHOD_AUTO
        model_ids = self._model_ids(request, method)
        parts, known = self._parts(request, sources, predicted=bool(model_ids))
        predictions = {part.source.id: self._predictions(part, model_ids, predict) for part in parts if model_ids}
        count = request.count or COUNT
        header = sparsifier_pb2.SuggestCellsHeader(
            method=method,
            count=count,
            backgrounds=request.backgrounds if request.HasField("backgrounds") else -(-count // 4),
            seed=request.seed,
            labelled_cells=sum(source.cells for source in sources),
        )
        answer = choose(self._stream(header, [*parts, *known], predictions))
        places = {part.source.id: part for part in parts}
        for suggestion in answer.suggestions:
            part = places[suggestion.image_id]
            suggestion.x += part.columns.start
            suggestion.y += part.rows.start
        return project_pb2.SuggestResponse(
            suggestions=answer.suggestions,
            method=answer.method,
            model_ids=model_ids,
            images=len(parts),
            candidates=answer.candidates,
        )

    def _sources(self, project_id: str) -> list[Source]:
        query = select(ProjectImageRow).where(ProjectImageRow.project_id == project_id)
        with self._database.read() as session:
            find_project(session, project_id)
            rows = list(session.scalars(query.order_by(ProjectImageRow.number)))
            found = [
                Source(
                    id=row.id,
                    sha256=row.sha256,
                    extent=extent_of(row),
                    cells=row.cells,
                    labelled=bool(row.labelled_pixels),
                )
                for row in rows
            ]
        flat = [source for source in found if source.extent.planes == 1]
        if not flat:
            raise FailedPrecondition(
                f"All images of project {project_id} are stacks of planes; suggestions need a 2D image."
                if found
                else f"Project {project_id} has no image yet: add one, then ask for suggestions."
            )
        return flat

    def _model_ids(self, request: project_pb2.SuggestRequest, method: int) -> list[str]:
        """Return the models that predict: those of the request, else for methods that need one the project's newest."""
        if request.model_ids or method not in NEEDS_MODEL:
            return list(dict.fromkeys(request.model_ids))
        query = select(ProjectRunRow.run_id).where(ProjectRunRow.project_id == request.project_id)
        with self._database.read() as session:
            runs = list(session.scalars(query.order_by(ProjectRunRow.number.desc()).limit(NEWEST_RUNS)))
        for run_id in runs:
            try:
                return [self._models.get(run_id).id]
            except NotFound:
                continue
        if method == suggestion_pb2.SUGGESTION_METHOD_ERRORS:
            raise FailedPrecondition(
                f"Project {request.project_id} has no model yet: train one, give model_ids, or ask for the method "
                "TYPICAL, which needs none."
            )
        return []

    def _parts(
        self, request: project_pb2.SuggestRequest, sources: Sequence[Source], *, predicted: bool
    ) -> tuple[list[Part], list[Part]]:
        """Return what is looked at, and further parts whose annotated cells count."""
        parts = sample(
            sources,
            most=request.max_images or (PREDICTED_IMAGES if predicted else IMAGES),
            pixels=MOST_PREDICTED if predicted else MOST_PIXELS,
            window=self._window,
            seed=request.seed,
        )
        known = known_parts(
            sources, parts, most=KNOWN_IMAGES, pixels=MOST_PIXELS, window=self._window, seed=request.seed
        )
        return parts, known

    def _pixels(self, part: Part) -> Pixels:
        data = read_blob(self._store, part.source.sha256)
        extent = part.source.extent
        most = extent.height * extent.width
        pixels = decode_image(data, max_pixels=most, values_per_pixel=MAX_CHANNELS).array
        return np.ascontiguousarray(pixels[part.rows, part.columns])

    def _predictions(self, part: Part, model_ids: Sequence[str], predict: Predict) -> list[bytes]:
        """Return the first model's cells, those of the turned images turned back, and those of the other models."""
        pixels = self._pixels(part)
        found = [predict(model_ids[0], pixels)]
        for turn, back in TURNS:
            found.append(back(predict(model_ids[0], np.ascontiguousarray(turn(pixels)))))
        found += [predict(model_id, pixels) for model_id in model_ids[1:]]
        return [encode_labels(np.ascontiguousarray(labels)) for labels in found]

    def _labels(self, part: Part) -> bytes:
        """Return the annotation of a part as a file; empty if nothing is annotated."""
        if not part.source.labelled:
            return b""
        labels = self._tiles.retry(lambda: read_labels(self._tiles, self._tiles.open(part.source.id, "")))
        inside = labels[part.rows, part.columns]
        return encode_labels(np.ascontiguousarray(inside)) if (inside >= 0).any() else b""

    def _stream(
        self, header: sparsifier_pb2.SuggestCellsHeader, parts: Sequence[Part], predictions: dict[str, list[bytes]]
    ) -> Iterator[sparsifier_pb2.SuggestCellsRequest]:
        """Yield the messages of a call; one image is in memory at a time."""
        make = sparsifier_pb2.SuggestCellsRequest
        images = (
            make(
                image=sparsifier_pb2.SuggestCellsImage(
                    name=part.source.id,
                    image=encode_tiff(self._pixels(part)),
                    label=self._labels(part),
                    predictions=predictions.get(part.source.id, ()),
                    only_known=part.only_known,
                )
            )
            for part in parts
        )
        end = make(end=sparsifier_pb2.SuggestCellsEnd(images=len(parts)))
        return itertools.chain([make(header=header)], images, [end])
