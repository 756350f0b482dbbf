"""Suggestions: which cells of a project, or of a dataset, to mark next.

Trainers predict, the sparsifier finds candidates and chooses.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import select

from cellsparse_common.dataset_items import label_shape
from cellsparse_common.datasets import read_manifest
from cellsparse_common.errors import Damaged, FailedPrecondition, InvalidArgument, NotFound
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_common.imaging.types import Labels
from cellsparse_common.storage import ObjectStore
from cellsparse_orchestrator.caller import visible
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.catalogue.models import Models
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import ProjectImageRow, ProjectRunRow, RunRow
from cellsparse_orchestrator.projects.label_tiles import LabelTiles
from cellsparse_orchestrator.projects.rows import extent_of, find_project
from cellsparse_orchestrator.projects.suggestion_pixels import Pixels, Reader
from cellsparse_orchestrator.projects.suggestion_sample import (
    MOST_PIXELS,
    MOST_PREDICTED,
    WINDOW,
    Part,
    Source,
    known_parts,
    sample,
)
from cellsparse_orchestrator.projects.tiling import Extent
from cellsparse_proto.v1 import common_pb2, dataset_pb2, project_pb2, sparsifier_pb2, suggestion_pb2

COUNT = 8
"""Cells that are suggested where the request gives no number."""
IMAGES, PREDICTED_IMAGES, KNOWN_IMAGES = 64, 32, 32
"""Images that are looked at where the request gives no number, and further ones with annotated cells."""
NEWEST_RUNS = 50
"""So many of a project's newest runs are asked for a model."""
NEEDS_MODEL = (suggestion_pb2.SUGGESTION_METHOD_AUTO, suggestion_pb2.SUGGESTION_METHOD_ERRORS)

MOST_PLANES = 32
"""Planes that a model of stacks gets, around the one that is looked at."""

Predict = Callable[[str, Pixels, bool], Labels]
"""Predicts pixels with a model, by its id: 0 background, n > 0 cell n. Axes are YX or YXC; if True, ZYX or ZYXC."""
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


def _as_it_is(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array


class Suggester:
    """Suggests what to mark next.

    Args:
        database: Holds images and runs.
        store: Holds images and annotations.
        tiles: Reads annotations.
        models: The table of models.
        datasets: The table of datasets.
        max_pixels: Largest image that the other services take, pixels.
    """

    def __init__(
        self,
        database: Database,
        store: ObjectStore,
        tiles: LabelTiles,
        models: Models,
        datasets: Datasets,
        max_pixels: int,
    ) -> None:
        self._database = database
        self._store = store
        self._tiles = tiles
        self._models = models
        self._datasets = datasets
        self._max_pixels = max_pixels
        self._window = min(WINDOW, int(max_pixels**0.5))

    def suggest(
        self, request: project_pb2.SuggestRequest, predict: Predict, choose: Choose
    ) -> project_pb2.SuggestResponse:
        """Return suggestions.

        Raises:
            NotFound: There is no such project, dataset or model.
            FailedPrecondition: There is no image, or ERRORS is asked for without a model.
            CellsparseError: A service or the store failed.
        """
        sources = self._sources(request)
        method = request.method or suggestion_pb2.SUGGESTION_METHOD_AUTO
        model_ids = self._model_ids(request, method)
        parts, known = self._parts(request, sources, predicted=bool(model_ids))
        work = _Work(Reader(self._store, self._tiles), predict, self._max_pixels)
        predictions = {part.name: work.predictions(part, model_ids) for part in parts if model_ids}
        count = request.count or COUNT
        header = sparsifier_pb2.SuggestCellsHeader(
            method=method,
            count=count,
            backgrounds=request.backgrounds if request.HasField("backgrounds") else -(-count // 4),
            seed=request.seed,
            labelled_cells=sum(source.cells for source in sources),
        )
        answer = choose(work.stream(header, [*parts, *known], predictions))
        places = {part.name: part for part in parts}
        for suggestion in answer.suggestions:
            part = places[suggestion.image_id]
            suggestion.image_id = part.source.id
            if part.plane is not None:
                suggestion.plane = part.plane
            suggestion.x += part.columns.start
            suggestion.y += part.rows.start
        return project_pb2.SuggestResponse(
            suggestions=answer.suggestions,
            method=answer.method,
            model_ids=model_ids,
            images=len({part.source.id for part in parts}),
            candidates=answer.candidates,
        )

    def _sources(self, request: project_pb2.SuggestRequest) -> list[Source]:
        if request.dataset_id:
            return self._items(request.dataset_id)
        project_id = request.project_id
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
        if not found:
            raise FailedPrecondition(f"Project {project_id} has no image yet: add one, then ask for suggestions.")
        return found

    def _items(self, dataset_id: str) -> list[Source]:
        """Return the TRAIN items of a dataset: what is labelled in the others only scores models."""
        self._datasets.get(dataset_id)  # another project's is not seen
        try:
            manifest = read_manifest(self._store, dataset_id)
        except NotFound:
            raise Damaged(f"The manifest of dataset {dataset_id} is missing in the store.") from None
        items = [item for item in manifest.items if item.split == common_pb2.SPLIT_TRAIN]
        if not items:
            raise FailedPrecondition(f"Dataset {dataset_id} has no TRAIN item; suggestions are for what is trained on.")
        return [_source(item) for item in items]

    def _model_ids(self, request: project_pb2.SuggestRequest, method: int) -> list[str]:
        """Return the models that predict: those of the request, else for methods that need one the newest."""
        if request.model_ids or method not in NEEDS_MODEL:
            return list(dict.fromkeys(request.model_ids))
        if request.dataset_id:
            of = f"Dataset {request.dataset_id}"
            query = select(RunRow.id).where(RunRow.dataset_id == request.dataset_id, visible(RunRow))
            query = query.order_by(RunRow.number.desc())
        else:
            of = f"Project {request.project_id}"
            query = select(ProjectRunRow.run_id).where(ProjectRunRow.project_id == request.project_id)
            query = query.order_by(ProjectRunRow.number.desc())
        with self._database.read() as session:
            runs = list(session.scalars(query.limit(NEWEST_RUNS)))
        for run_id in runs:
            try:
                return [self._models.get(run_id).id]
            except NotFound:
                continue
        if method == suggestion_pb2.SUGGESTION_METHOD_ERRORS:
            raise FailedPrecondition(
                f"{of} has no model yet: train one, give model_ids, or ask for the method TYPICAL, which needs none."
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


def _source(item: dataset_pb2.DatasetItem) -> Source:
    *planes, height, width = label_shape(item)
    return Source(
        id=item.name,
        sha256=item.image_sha256,
        extent=Extent(height=height, width=width, planes=planes[0] if planes else 1),
        cells=item.cells,
        labelled=item.labelled_pixels > 0,
        item=item,
    )


class _Work:
    """Reads and predicts what one call looks at.

    Args:
        reader: Reads images and labels.
        predict: Predicts pixels.
        max_pixels: Largest image that is predicted, of stacks all planes together.
    """

    def __init__(self, reader: Reader, predict: Predict, max_pixels: int) -> None:
        self._reader = reader
        self._predict = predict
        self._max_pixels = max_pixels
        self._of_stacks: set[str] = set()
        """Models that are known to take stacks only."""

    def predictions(self, part: Part, model_ids: Sequence[str]) -> list[bytes]:
        """Return the first model's cells, those of the turned images turned back, and those of the other models."""
        found = [self._cells(part, model_ids[0], turn, back) for turn, back in ((_as_it_is, _as_it_is), *TURNS)]
        found += [self._cells(part, model_id, _as_it_is, _as_it_is) for model_id in model_ids[1:]]
        return [encode_labels(np.ascontiguousarray(labels)) for labels in found]

    def _cells(self, part: Part, model_id: str, turn: Turn, back: Turn) -> Labels:
        """Return a model's cells in a part; of a stack, a model of stacks gets the planes around the part, too."""
        if model_id in self._of_stacks:
            return self._cells_of_stack(part, model_id, turn, back)
        try:
            return back(self._predict(model_id, np.ascontiguousarray(turn(self._reader.pixels(part))), False))
        except InvalidArgument as refused:
            if part.plane is None:
                raise
            try:
                found = self._cells_of_stack(part, model_id, turn, back)
            except InvalidArgument:
                raise refused from None
        self._of_stacks.add(model_id)
        return found

    def _cells_of_stack(self, part: Part, model_id: str, turn: Turn, back: Turn) -> Labels:
        most = min(self._max_pixels, MOST_PLANES * part.shape[0] * part.shape[1])
        slab, own = self._reader.slab(part, most)
        labels = self._predict(model_id, np.stack([turn(plane) for plane in slab]), True)
        return back(labels[own])

    def stream(
        self, header: sparsifier_pb2.SuggestCellsHeader, parts: Sequence[Part], predictions: dict[str, list[bytes]]
    ) -> Iterator[sparsifier_pb2.SuggestCellsRequest]:
        """Yield the messages of a call; one image is in memory at a time."""
        make = sparsifier_pb2.SuggestCellsRequest
        images = (
            make(
                image=sparsifier_pb2.SuggestCellsImage(
                    name=part.name,
                    image=encode_tiff(self._reader.pixels(part)),
                    label=self._labels(part),
                    predictions=predictions.get(part.name, ()),
                    only_known=part.only_known,
                )
            )
            for part in parts
        )
        end = make(end=sparsifier_pb2.SuggestCellsEnd(images=len(parts)))
        return itertools.chain([make(header=header)], images, [end])

    def _labels(self, part: Part) -> bytes:
        """Return what is labelled in a part as a file; empty if nothing is."""
        labels = self._reader.labels(part)
        return b"" if labels is None else encode_labels(labels)
