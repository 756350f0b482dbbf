"""What the three addresses of QuPath's extension do: train, segment, forget."""

import logging
import math
import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import CellsparseError
from cellsparse_common.imaging.images import decode_image
from cellsparse_gateway.qupath import alias_projects
from cellsparse_gateway.qupath.bodies import ResetBody, SegmentBody
from cellsparse_gateway.qupath.calls import Calls
from cellsparse_gateway.qupath.deadlines import PATIENCE_SECONDS, Deadline
from cellsparse_gateway.qupath.features import Feature, cell_features
from cellsparse_gateway.qupath.pictures import MANY_CELLS, Picture, count_cells, read_labels, read_picture
from cellsparse_gateway.qupath.refusals import Refusal, from_error, unprocessable
from cellsparse_gateway.qupath.training import train
from cellsparse_proto.v1 import orchestrator_pb2, project_pb2, trainer_pb2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segmented:
    """The answer to a request."""

    features: list[Feature] = field(default_factory=list)
    """One per cell; empty unless they were asked for."""
    warning: str = ""
    """A sentence about the request, if something should be known."""


class Segmenting:
    """Serves QuPath's requests; each call runs in a thread of its own.

    Args:
        channel: Channel to the orchestrator.
        training_seconds: How long a training should take at most.
        closing: Set when the server is about to end.
        patience_seconds: Longest time of one request.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        training_seconds: float,
        closing: threading.Event,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._calls = Calls(channel)
        self._training_seconds = training_seconds
        self._closing = closing
        self._patience_seconds = patience_seconds
        self._locks: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._max_pixels: int | None = None

    def segment(self, backend: str, body: SegmentBody) -> Segmented:
        """Train and segment, as far as the body asks for it.

        Args:
            backend: Name of the backend's field in TrainingSettings.
            body: The request.

        Raises:
            Refusal: It cannot be done. Images and labels that were sent stay with the alias.
        """
        deadline = self._deadline()
        max_pixels = self.max_pixels(deadline)
        picture = read_picture(body.b64img, max_pixels)
        labels = read_labels(body.b64lbl, picture, max_pixels) if body.train else None
        if labels is not None:
            model_id = self._train(backend, body, picture, labels, deadline)
        elif body.eval:
            model_id = self._model(backend, body.modelname, deadline)
        features = self._features(model_id, picture, body, deadline) if body.eval else []
        return Segmented(features, cells_warning(labels))

    def reset(self, backend: str, body: ResetBody) -> None:
        """Forget an alias with its images. Runs and models stay.

        Raises:
            Refusal: The pretrained model that it should go on from is not there.
        """
        deadline = self._deadline()
        model_id = self._pretrained(backend, body.pretrained, deadline) if body.pretrained else ""
        alias = alias_projects.find_alias(self._calls, backend, body.modelname, deadline)
        alias_projects.forget(self._calls, alias, deadline)
        if model_id:
            fresh = project_pb2.Alias(backend=backend, name=body.modelname, model_id=model_id)
            self._calls.ask(self._calls.projects.SetAlias, project_pb2.SetAliasRequest(alias=fresh), deadline)

    def max_pixels(self, deadline: Deadline | None = None) -> int:
        """Return the most pixels of an image that the orchestrator reads. Asked once."""
        if self._max_pixels is None:
            request = orchestrator_pb2.GetStatusRequest()
            answer = self._calls.ask(self._calls.runs.GetStatus, request, deadline or self._deadline())
            self._max_pixels = int(answer.max_pixels)
        return self._max_pixels

    def _deadline(self) -> Deadline:
        return Deadline(self._patience_seconds, self._closing)

    def _train(
        self,
        backend: str,
        body: SegmentBody,
        picture: Picture,
        labels: npt.NDArray[np.integer[Any]],
        deadline: Deadline,
    ) -> str:
        """Train one at a time per alias: whoever comes second goes on from the first one's model."""
        lock = self._locks[backend, body.modelname]
        deadline.take(lock)
        try:
            alias = alias_projects.find_alias(self._calls, backend, body.modelname, deadline)
            alias = alias_projects.open_project(self._calls, alias, deadline)
            alias_projects.keep_image(self._calls, alias.project_id, picture, labels, deadline)
            model_id = train(self._calls, alias, body, self._training_seconds, deadline)
            now = alias_projects.find_alias(self._calls, backend, body.modelname, deadline)
            if now.project_id == alias.project_id:  # else it was reset meanwhile
                now.model_id = model_id
                self._calls.ask(self._calls.projects.SetAlias, project_pb2.SetAliasRequest(alias=now), deadline)
            return model_id
        finally:
            lock.release()

    def _model(self, backend: str, name: str, deadline: Deadline) -> str:
        alias = alias_projects.find_alias(self._calls, backend, name, deadline)
        runs = alias_projects.project_runs(self._calls, alias.project_id, backend, deadline) if alias.project_id else []
        model_id = alias_projects.newest_model(alias, runs)
        if not model_id:
            title = alias_projects.TITLES[backend]
            raise Refusal(HTTPStatus.CONFLICT, f'Train first: there is no {title} model "{name}" yet.')
        return model_id

    def _features(self, model_id: str, picture: Picture, body: SegmentBody, deadline: Deadline) -> list[Feature]:
        request = trainer_pb2.PredictRequest(
            model_id=model_id, image=picture.tiff(), axes=picture.axes, min_pixels=math.ceil(body.minarea)
        )
        answer = self._calls.work(self._calls.runs.Predict, request, deadline)
        height, width = picture.array.shape[:2]
        try:
            label = decode_image(answer.label, max_pixels=height * width, field="label", labels=True, trusted=True)
            return cell_features(label.array.astype(np.int32, copy=False), body.simplify_tol or 0.0)
        except CellsparseError as error:
            raise from_error(error) from error

    def _pretrained(self, backend: str, model_id: str, deadline: Deadline) -> str:
        known = "[a-z0-9][a-z0-9-]{0,62}"
        found = None
        if re.fullmatch(known, model_id):
            request = orchestrator_pb2.GetModelRequest(model_id=model_id)
            found = self._calls.find(self._calls.runs.GetModel, request, deadline)
        if not found or found.model.backend != backend:
            title = alias_projects.TITLES[backend]
            raise unprocessable(
                f'There is no {title} model "{model_id}" here, and none is downloaded; allowed: the id of a {title} '
                "model of this server, or none."
            )
        return model_id


def cells_warning(labels: npt.NDArray[np.integer[Any]] | None) -> str:
    """Return and log a sentence if an image has so many cells that QuPath's numbers will run out; else ""."""
    cells = 0 if labels is None else count_cells(labels)
    if cells <= MANY_CELLS:
        return ""
    sentence = (
        f"The image has {cells} annotations of the class Foreground; from 254 on QuPath merges cells. Keep at most "
        f"{MANY_CELLS} in one image."
    )
    _log.warning(sentence)
    return sentence
