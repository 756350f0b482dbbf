"""How sure models are of predicted cells, kept for the layers that prompts ask about."""

import threading
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from cellsparse_gateway.calls import ASK_SECONDS, Orchestrator
from cellsparse_proto.v1 import project_pb2

LAYERS = 16
"""Most layers whose scores are kept."""


class LayerScores:
    """Scores by label number. Safe to use from many threads.

    Args:
        orchestrator: Has the layers.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._projects = orchestrator.projects
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], npt.NDArray[np.float32]] = OrderedDict()

    def score(self, image_id: str, layer_id: str, revision: int, number: int) -> float:
        """Return the score of a layer's cell; 0 if the layer has no such cell any more.

        Args:
            image_id: The image.
            layer_id: Its layer.
            revision: Of the layer.
            number: The cell's label number.

        Raises:
            grpc.RpcError: There is no such image or layer.
        """
        key = (layer_id, revision)
        with self._lock:
            scores = self._kept.get(key)
        if scores is None:
            request = project_pb2.ListCellsRequest(image_id=image_id, layer_id=layer_id)
            cells = self._projects.ListCells(request, timeout=ASK_SECONDS).cells
            scores = np.zeros(max((cell.label for cell in cells), default=0) + 1, np.float32)
            for cell in cells:
                scores[cell.label] = cell.score
        with self._lock:
            self._kept[key] = scores
            self._kept.move_to_end(key)
            while len(self._kept) > LAYERS:
                self._kept.popitem(last=False)
        return float(scores[number]) if number < len(scores) else 0.0
