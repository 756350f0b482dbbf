"""Orchestrator, gateway, and a QuPath that calls it."""

import numpy as np
from support.gateway import Gateway
from support.limits import PATIENCE
from support.orchestrator import Orchestrator
from support.qupath import QuPath

from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_proto.v1 import orchestrator_pb2, project_pb2, project_pb2_grpc, trainer_pb2


class Services:
    """Orchestrator, gateway and client."""

    def __init__(self, orchestrator: Orchestrator, gateway: Gateway, qupath: QuPath) -> None:
        self.orchestrator = orchestrator
        self.gateway = gateway
        self.qupath = qupath
        self.projects = project_pb2_grpc.ProjectServiceStub(orchestrator.channel)
        self._older: set[str] = set()

    def begin(self) -> None:
        """Forget what earlier tests did."""
        assert self.qupath.reset(self.url("elephant")).status == 200
        self._older = {run.id for run in self._all_runs()}

    def url(self, word: str) -> str:
        return f"{self.gateway.url}/{word}/"

    def alias(self, backend: str) -> project_pb2.Alias:
        request = project_pb2.GetAliasRequest(backend=backend, name="default")
        return self.projects.GetAlias(request, timeout=PATIENCE).alias

    def runs(self) -> list[orchestrator_pb2.Run]:
        """This test's runs, newest first."""
        return [run for run in self._all_runs() if run.id not in self._older]

    def _all_runs(self) -> list[orchestrator_pb2.Run]:
        return list(self.orchestrator.runs.ListRuns(orchestrator_pb2.ListRunsRequest(), timeout=PATIENCE).runs)

    def images(self, backend: str) -> list[project_pb2.ProjectImage]:
        request = project_pb2.ListImagesRequest(project_id=self.alias(backend).project_id)
        return list(self.projects.ListImages(request, timeout=PATIENCE).images)

    def prediction(self, model_id: str, image: str) -> np.ndarray:
        """The label image that a model predicts, as the orchestrator answers it."""
        array = self.qupath.array(image)
        if image == "argb":
            array = array[..., :3]
        request = trainer_pb2.PredictRequest(
            model_id=model_id, image=encode_tiff(array), axes="YXC"[: array.ndim], min_pixels=10
        )
        answer = self.orchestrator.runs.Predict(request, timeout=PATIENCE)
        return decode_image(answer.label, max_pixels=2**20, labels=True).array

    def check_outlines(self, features: list[dict], model_id: str, image: str) -> None:
        """The outlines, painted by Java, are the prediction's cells."""
        label = self.prediction(model_id, image)
        painted = self.qupath.paint(features, label.shape)
        numbers = np.unique(label[label > 0])
        assert len(features) == len(numbers)
        for number, cell in enumerate(numbers, 1):
            one, other = painted == number, label == cell
            assert (one & other).sum() / (one | other).sum() >= 0.999
        for index, feature in enumerate(features):
            assert feature["type"] == "Feature"
            assert feature["properties"] == {"object_idx": index, "label": "object"}
            assert "id" not in feature
