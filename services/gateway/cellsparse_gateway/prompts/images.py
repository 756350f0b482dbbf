"""Prompts on images of projects, in pixels of the whole image."""

import logging
import threading
from collections import OrderedDict

import numpy as np

from cellsparse_common.errors import CellsparseError
from cellsparse_common.imaging.classical.diameter import estimate_diameter
from cellsparse_gateway.calls import ASK_SECONDS, Orchestrator
from cellsparse_gateway.prompts.choose import Prompters
from cellsparse_gateway.prompts.classical import Classical
from cellsparse_gateway.prompts.layer_scores import LayerScores
from cellsparse_gateway.prompts.model import Model
from cellsparse_gateway.prompts.places import (
    LONGEST,
    Asked,
    Window,
    check,
    clipped,
    close_window,
    cut_off,
    extent,
    grid_window,
    moved,
    placed,
)
from cellsparse_gateway.prompts.tiles import Windows
from cellsparse_gateway.prompts.types import AUTO, NOTHING, Prompter, Proposal
from cellsparse_proto.v1 import project_pb2

_LOG = logging.getLogger(__name__)

SEEN = 256
"""Half the side (pixels) of the part of an image that a diameter is estimated from."""
WIDEST = 1024
"""Largest distance between a click and the window's edge in which a predicted instance is looked for."""
ESTIMATES = 256
"""Most diameters that are kept."""


class ImagePrompts:
    """Answers prompts on images of projects. Safe to use from many threads.

    Args:
        orchestrator: Has the images.
        prompters: Those that there are.
    """

    def __init__(self, orchestrator: Orchestrator, prompters: Prompters) -> None:
        self._projects = orchestrator.projects
        self._scores = LayerScores(orchestrator)
        self._windows = Windows(orchestrator)
        self._prompters = prompters
        self._lock = threading.Lock()
        self._diameters: OrderedDict[tuple[object, ...], float] = OrderedDict()

    def propose(self, image_id: str, asked: Asked) -> tuple[list[Proposal], str]:
        """Return proposals placed in the whole image, and the name of the prompter.

        Raises:
            InvalidArgument: The image has no such plane or channel, a point lies outside, or nothing is shown.
            grpc.RpcError: There is no such image or layer.
        """
        image = self._projects.GetImage(project_pb2.GetImageRequest(image_id=image_id), timeout=ASK_SECONDS).image
        check(asked, image)
        weighted = self._prompters.asked(asked.method)
        if asked.method in (AUTO, Model.name):
            found = self._predicted(image, asked)
            if found[0].mask.size or asked.method == Model.name:
                return found, Model.name
        channels = list(range(image.channels)) if asked.channel is None else [asked.channel]
        diameter = asked.diameter or image.diameter or self._estimate(image, asked, channels)
        tries: list[tuple[Prompter, Window]] = [(each, grid_window(asked, image, diameter)) for each in weighted]
        if not weighted or asked.method == AUTO:
            tries.append((Classical(), close_window(asked, image, diameter)))
        found, name = [NOTHING], ""
        for prompter, (level, rows, columns) in tries:
            pixels = self._windows.pixels(image, level, asked.plane, channels, rows, columns)
            try:
                proposals = prompter.propose(moved(asked, pixels, level, rows, columns, diameter))
            except CellsparseError as error:
                if asked.method != AUTO:
                    raise
                _LOG.warning("prompter %s: %s", prompter.name, error.message)
                continue
            found, name = [placed(each, level, rows, columns, image) for each in proposals], prompter.name
            if any(each.mask.size for each in found):
                break
        return found, name

    def _predicted(self, image: "project_pb2.ProjectImage", asked: Asked) -> list[Proposal]:
        """Return what the model layers propose, from a window that no instance under the prompt leaves."""
        listed = self._projects.ListLayers(project_pb2.ListLayersRequest(image_id=image.id), timeout=ASK_SECONDS)
        revisions = {layer.id: layer.revision for layer in listed.layers}
        ids = [asked.layer] if asked.layer else list(revisions)

        def score(layer: int, number: int) -> float:
            return self._scores.score(image.id, ids[layer], revisions.get(ids[layer], 0), number)

        reach = 128
        while ids:
            rows, columns = clipped(extent(asked, reach), image, 0)
            if rows.stop - rows.start > 2 * LONGEST or columns.stop - columns.start > 2 * LONGEST:
                break
            layers = [self._windows.labels(image.id, each, 0, asked.plane, rows, columns) for each in ids]
            nothing = np.broadcast_to(np.uint8(0), layers[0].shape)
            found = Model(layers, score).propose(moved(asked, nothing, 0, rows, columns, None))
            if reach >= WIDEST or not any(cut_off(each, rows, columns, image) for each in found):
                return [placed(each, 0, rows, columns, image) for each in found]
            reach *= 2
        return [NOTHING]

    def _estimate(self, image: "project_pb2.ProjectImage", asked: Asked, channels: list[int]) -> float:
        """Return the diameter of cells around a prompt, kept for each part of an image."""
        left, top, right, bottom = extent(asked, 0)
        y, x = int((top + bottom) / 2) // SEEN, int((left + right) / 2) // SEEN
        key = (image.id, asked.plane, asked.channel, y, x)
        with self._lock:
            if key in self._diameters:
                return self._diameters[key]
        middle = (x + 0.5) * SEEN, (y + 0.5) * SEEN
        rows, columns = clipped((middle[0] - SEEN, middle[1] - SEEN, middle[0] + SEEN, middle[1] + SEEN), image, 0)
        found = estimate_diameter(self._windows.pixels(image, 0, asked.plane, channels, rows, columns))
        with self._lock:
            self._diameters[key] = found
            while len(self._diameters) > ESTIMATES:
                self._diameters.popitem(last=False)
        return found
