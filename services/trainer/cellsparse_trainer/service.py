"""The trainer's servicer: one contract for all backends."""

import importlib.metadata
import math
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Generic

import grpc

from cellsparse_common.datasets import read_manifest
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.rpc.server import time_left
from cellsparse_common.scoring.matching import DEFAULT_IOUS, Counts, scores
from cellsparse_common.storage import ObjectStore
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2, trainer_pb2_grpc
from cellsparse_trainer.config.settings import TrainerSettings
from cellsparse_trainer.contract import BackendSpec, C
from cellsparse_trainer.data.fed_image import LARGE_PIXELS, LARGE_TIMES
from cellsparse_trainer.models.cache import CacheBounds, cached_models, remove_leftovers
from cellsparse_trainer.models.exports import build_export, format_name, read_messages
from cellsparse_trainer.models.imports import publish_upload
from cellsparse_trainer.models.inference import InferenceContext, evaluate_item, predict_file, predict_files
from cellsparse_trainer.models.store import read_card
from cellsparse_trainer.processes.attempts import Attempts, AttemptSettings
from cellsparse_trainer.processes.inference_environments import inference_environments
from cellsparse_trainer.processes.inference_pool import InferencePool, asker_of
from cellsparse_trainer.processes.metrics import TrainingMetrics
from cellsparse_trainer.training.newest import fetch_newest
from cellsparse_trainer.training.resolution import Resolution

_PACKAGE = re.compile(r"[A-Za-z0-9._-]+")
_EVALUATE_SECONDS = 86400.0
_SMALL_BYTES = 2**20
"""Largest file of an image that is predicted together with others."""
_WAITING_FILES = 8
"""Most imports and exports that wait."""
_FILES_IDLE_SECONDS = 60.0
"""Time after which the process of imports and exports ends, if that of predictions does not end sooner."""


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer, Generic[C]):
    """Serves one backend; frameworks are loaded in child processes only.

    Args:
        spec: The backend.
        settings: Time limits and sizes.
        store: Holds datasets and models.
        work_dir: Folder of this server alone.
        metrics: Counts what attempts report.
    """

    def __init__(
        self,
        spec: BackendSpec[C],
        settings: TrainerSettings,
        store: ObjectStore,
        work_dir: Path,
        metrics: TrainingMetrics,
    ) -> None:
        self._backend = spec.name
        self._settings = settings
        self._store = store
        self._resolve = Resolution(spec.light(), store)
        how = AttemptSettings(
            package=spec.package,
            preload=spec.preload,
            stop_seconds=settings.stop_seconds,
            warm_seconds=settings.warm_seconds,
            warm_start=settings.warm_start,
            node_command=spec.node_command,
            rendezvous_seconds=settings.rendezvous_seconds,
        )
        self._attempts = Attempts(how, work_dir / "attempts", store, metrics, settings)
        self._context = InferenceContext(
            package=spec.package,
            cache=work_dir / "models",
            device="auto",
            checkpoints=work_dir / "checkpoints",
            bounds=CacheBounds(
                models=settings.cached_models,
                mib=settings.cached_models_mib,
                open_models=settings.open_models,
                open_mib=settings.open_models_mib,
            ),
        )
        remove_leftovers(self._context.cache)
        self._devices = _devices()
        environments = inference_environments(settings.inference_processes, len(self._devices) - 1, os.environ)
        self._inference = InferencePool(environments, settings.waiting_predictions, settings.idle_seconds)
        # A hostile or slow file must not keep predictions waiting.
        self._files = InferencePool(environments[:1], _WAITING_FILES, min(_FILES_IDLE_SECONDS, settings.idle_seconds))
        self._exports, self._imports = work_dir / "exports", work_dir / "imports"
        for folder in (self._exports, self._imports, self._context.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)  # a server that was killed may have left some
            folder.mkdir(parents=True)
        self._instance_id = uuid.uuid4().hex
        self._versions = _versions(spec.package)
        self._draining = False

    def Describe(
        self, request: trainer_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.DescribeResponse:
        """Return the backend, its versions and devices."""
        return trainer_pb2.DescribeResponse(
            backend=self._backend,
            versions=self._versions,
            devices=self._devices,
            instance_id=self._instance_id,
            active=list(self._attempts.active()),
        )

    def StartTraining(
        self, request: trainer_pb2.StartTrainingRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.StartTrainingResponse:
        """Check the request, resolve its settings, and start the attempt."""
        named = request.settings.WhichOneof("backend")
        if named != self._backend:
            raise InvalidArgument(f"The settings are for {named}; this trainer is {self._backend}.", "settings.backend")
        if self._attempts.knows(request):
            return trainer_pb2.StartTrainingResponse(started=False)
        config, inputs = self._resolve(request, self._attempts.open_store(request))
        return trainer_pb2.StartTrainingResponse(started=self._attempts.start(request, inputs, config.plan))

    def WatchTraining(
        self, request: trainer_pb2.WatchTrainingRequest, context: grpc.ServicerContext
    ) -> Iterator[trainer_pb2.WatchTrainingResponse]:
        """Stream an attempt's events."""
        log = self._attempts.log(request.run_id, request.attempt)
        for event in log.follow(request.after_sequence, lambda: context.is_active() and not self._draining):
            yield trainer_pb2.WatchTrainingResponse(event=event)

    def RenewCredentials(
        self, request: trainer_pb2.RenewCredentialsRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.RenewCredentialsResponse:
        """Replace an attempt's credentials."""
        self._attempts.renew(request)
        return trainer_pb2.RenewCredentialsResponse()

    def StopTraining(
        self, request: trainer_pb2.StopTrainingRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.StopTrainingResponse:
        """End an attempt."""
        return trainer_pb2.StopTrainingResponse(state=self._attempts.stop(request.run_id, request.attempt).state)

    def Predict(
        self, request: trainer_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.PredictResponse:
        """Segment one image."""
        if not request.image and not request.transfer_id:
            raise InvalidArgument("image is missing.", "image")
        most = self._settings.predict_seconds * (LARGE_TIMES if request.transfer_id else 1)
        seconds = time_left(context, most)
        if not request.checkpoint:
            read_card(self._store, request.model_id)
        answer = self._inference.call(
            predict_file,
            self._context,
            request.SerializeToString(),
            self._settings.max_pixels,
            fetch_newest if request.checkpoint else None,
            asker=asker_of(context, seconds),
            group=_group(request),
            together=predict_files,
        )
        return trainer_pb2.PredictResponse.FromString(answer)

    def Evaluate(
        self, request: trainer_pb2.EvaluateRequest, context: grpc.ServicerContext
    ) -> Iterator[trainer_pb2.EvaluateResponse]:
        """Score a model on one split, item by item."""
        read_card(self._store, request.model_id)
        split = request.split or common_pb2.SPLIT_TEST
        items = self._items(request.dataset_id, split)
        ious = list(request.ious) or list(DEFAULT_IOUS)
        yield trainer_pb2.EvaluateResponse(items_done=0, items_total=len(items))
        report = trainer_pb2.EvaluationReport()
        total: list[Counts] | None = None
        for done, item in enumerate(items, start=1):
            large = math.prod(item.shape) >= LARGE_PIXELS
            most = self._settings.predict_seconds * (LARGE_TIMES if large else 1)
            seconds = min(time_left(context, _EVALUATE_SECONDS), most)
            counts, sparse = self._inference.call(
                evaluate_item,
                self._context,
                request.SerializeToString(),
                item.SerializeToString(),
                ious,
                asker=asker_of(context, seconds, patient=True),
            )
            total = counts if total is None else [a + b for a, b in zip(total, counts, strict=True)]
            report.items.add(item=item.name, scores=[scores(count).to_message() for count in counts])
            report.sparse = report.sparse or sparse
            if not context.is_active():
                return
            yield trainer_pb2.EvaluateResponse(items_done=done, items_total=len(items))
        report.scores.extend(scores(count).to_message() for count in total or ())
        yield trainer_pb2.EvaluateResponse(items_done=len(items), items_total=len(items), report=report)

    def Export(
        self, request: trainer_pb2.ExportRequest, context: grpc.ServicerContext
    ) -> Iterator[trainer_pb2.ExportResponse]:
        """Write a model as a file for other tools and send it."""
        read_card(self._store, request.model_id)
        seconds = time_left(context, self._settings.export_seconds)
        name = format_name(request.format)
        with tempfile.TemporaryDirectory(dir=self._exports) as folder:
            path = self._files.call(
                build_export,
                self._context,
                request.model_id,
                name,
                Path(folder),
                asker=asker_of(context, seconds),
                what="export",
            )
            for message in read_messages(path):
                if not context.is_active():
                    return
                yield message

    def PublishModel(
        self, request: trainer_pb2.PublishModelRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.PublishModelResponse:
        """Check an uploaded model file and publish it."""
        named = request.settings.backend
        if named != self._backend:
            raise InvalidArgument(f"The file is for {named}; this trainer is {self._backend}.", "settings.backend")
        for field, _ in request.settings.ListFields():
            if field.message_type is not None and field.name != named:
                raise InvalidArgument(
                    f"{field.name} holds settings of {field.name} models, but the file is for {named}; leave it out.",
                    f"settings.{field.name}",
                )
        seconds = time_left(context, self._settings.import_seconds)
        with tempfile.TemporaryDirectory(dir=self._imports) as folder:
            self._files.call(
                publish_upload,
                self._context,
                request.SerializeToString(),
                Path(folder),
                asker=asker_of(context, seconds),
                what="import",
            )
        return trainer_pb2.PublishModelResponse()

    def busy(self) -> bool:
        """Whether an attempt is training."""
        return any(True for _ in self._attempts.active())

    def waiting(self) -> int:
        """Return how much waits for the inference processes, with what was refused and told to come back."""
        return self._inference.demand + self._files.demand

    def cached_bytes(self) -> int:
        """Return the bytes of the downloaded models."""
        return sum(size for _, size in cached_models(self._context.cache))

    def cached_models(self) -> int:
        """Return the number of downloaded models."""
        return len(cached_models(self._context.cache))

    def drain(self) -> None:
        """End all attempts, each with a checkpoint, and their streams."""
        self._attempts.stop_all()
        self._draining = True

    def close(self) -> None:
        """End the processes that wait for work."""
        self._inference.close()
        self._files.close()
        self._attempts.close()

    def _items(self, dataset_id: str, split: "common_pb2.Split") -> list[dataset_pb2.DatasetItem]:
        manifest = read_manifest(self._store, dataset_id)
        items = [item for item in manifest.items if item.split == split]
        if not items:
            name = common_pb2.Split.Name(split)
            raise InvalidArgument(f"Dataset {dataset_id} has no item of {name}.", "split")
        return items


def _group(request: trainer_pb2.PredictRequest) -> str | None:
    """Return what predictions of small images that are made together have in common; None: it is made alone.

    Together they wait for the process once, and their model is not closed in between for another one.
    """
    if request.transfer_id or len(request.image) > _SMALL_BYTES:
        return None
    return f"checkpoint {request.model_id}" if request.checkpoint else request.model_id


def _versions(package: str) -> dict[str, str]:
    """Return the versions of numpy and of the requirements of the backend's distribution, without loading any."""
    try:
        required = importlib.metadata.requires(package.replace("_", "-")) or []
    except importlib.metadata.PackageNotFoundError:
        required = []
    names = sorted({"numpy", *(_PACKAGE.match(entry).group() for entry in required)})  # type: ignore[union-attr]
    return {name: importlib.metadata.version(name) for name in names}


def _devices() -> list[str]:
    """List devices without loading a framework: the CPU, and what the NVIDIA driver lists."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ["cpu"]
    try:
        query = [tool, "--query-gpu=name", "--format=csv,noheader"]
        listing = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ["cpu"]
    return ["cpu", *(f"cuda:{number} {name}" for number, name in enumerate(listing.splitlines()))]
