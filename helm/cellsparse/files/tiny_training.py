"""Trains a tiny model through an orchestrator, from data that it draws itself: what `helm test` runs in a pod.

Exit code 0 if the run's model is listed in the end, else 1 and a sentence.
"""

import argparse
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TypeVar

import grpc
import numpy as np

from cellsparse_common.config.settings import ServerSettings, load
from cellsparse_common.errors import CellsparseError
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_common.rpc.channel import open_channel, use_tls
from cellsparse_proto.v1 import (
    common_pb2,
    dataset_pb2,
    dataset_pb2_grpc,
    orchestrator_pb2,
    orchestrator_pb2_grpc,
    trainer_pb2,
)

Answer = TypeVar("Answer")
SIZE = 64
STEPS = 4
PAUSE_SECONDS = 1.0
ITEMS = (("train", common_pb2.SPLIT_TRAIN), ("val", common_pb2.SPLIT_VAL))
RUNNING = (
    common_pb2.RUN_STATE_QUEUED,
    common_pb2.RUN_STATE_STARTING,
    common_pb2.RUN_STATE_RUNNING,
    common_pb2.RUN_STATE_RETRYING,
)


def draw() -> tuple[np.ndarray, np.ndarray]:
    """Return four bright discs as a uint8 image and a label image, two of them labelled, axes YX."""
    y, x = np.mgrid[:SIZE, :SIZE]
    quarter = SIZE // 4
    distance = np.hypot(y % (2 * quarter) - quarter, x % (2 * quarter) - quarter)
    disc = distance < quarter / 2
    cell = 1 + y // (2 * quarter) * 2 + x // (2 * quarter)
    image = np.where(disc, 120 + 20 * cell, 20).astype(np.uint8)
    label = np.where(disc & (cell <= 2), cell, -1).astype(np.int32)
    label[~disc & (y < SIZE // 2)] = 0
    return image, label


def upload(name: str) -> Iterator[dataset_pb2.CreateDatasetRequest]:
    """Yield the messages that create the dataset."""
    image, label = draw()
    yield dataset_pb2.CreateDatasetRequest(header=dataset_pb2.DatasetHeader(name=name))
    for item, split in ITEMS:
        for role, data in (
            (dataset_pb2.FILE_ROLE_IMAGE, encode_tiff(image)),
            (dataset_pb2.FILE_ROLE_LABEL, encode_labels(label)),
        ):
            yield dataset_pb2.CreateDatasetRequest(file=dataset_pb2.FileHeader(item=item, split=split, role=role))
            yield dataset_pb2.CreateDatasetRequest(chunk=data)
    yield dataset_pb2.CreateDatasetRequest(end=dataset_pb2.UploadEnd(items=len(ITEMS)))


def ask(call: Callable[[], Answer], end: float) -> Answer:
    """Return a call's answer; an orchestrator that is just starting, or that stands by, is asked again until `end`."""
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                raise
            time.sleep(PAUSE_SECONDS)


def train(address: str, backend: str, seconds: float) -> str:
    """Train, and return what went wrong; empty if nothing did.

    Args:
        address: The orchestrator's host:port.
        backend: Name of the backend's field in TrainingSettings.
        seconds: Longest time for everything.

    Raises:
        grpc.RpcError: The orchestrator cannot be reached or refuses.
    """
    end = time.monotonic() + seconds
    settings = trainer_pb2.TrainingSettings(steps=STEPS, crop_size=32, batch_size=1)
    if backend not in settings.DESCRIPTOR.fields_by_name:
        return f"There is no backend {backend}."
    getattr(settings, backend).SetInParent()
    with open_channel(address, token=os.environ.get("CELLSPARSE_TOKEN", "")) as channel:
        datasets = dataset_pb2_grpc.DatasetServiceStub(channel)
        orchestrator = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        dataset = ask(
            lambda: datasets.CreateDataset(upload("helm-test"), timeout=seconds, wait_for_ready=True).dataset, end
        )
        request = orchestrator_pb2.CreateRunRequest(
            name="helm-test", dataset_id=dataset.id, settings=settings, request_id=uuid.uuid4().hex
        )
        run = ask(lambda: orchestrator.CreateRun(request, timeout=seconds).run, end)
        said = ""
        while run.state in RUNNING:
            if time.monotonic() > end:
                orchestrator.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run.id), timeout=10)
                return f"The run {run.id} did not end within {seconds:g} s: {run.message or 'no reason given'}"
            time.sleep(0.5)
            wanted = orchestrator_pb2.GetRunRequest(run_id=run.id)
            run = ask(lambda wanted=wanted: orchestrator.GetRun(wanted, timeout=30).run, end)
            line = f"{common_pb2.RunState.Name(run.state)} {run.message}".strip()
            if line != said:
                print(line, flush=True)
                said = line
        if run.state != common_pb2.RUN_STATE_SUCCEEDED:
            return f"The run {run.id} ended as {common_pb2.RunState.Name(run.state)}: {run.message}"
        model = orchestrator.GetModel(orchestrator_pb2.GetModelRequest(model_id=run.id), timeout=30).model
    print(f"model {model.id} of {model.backend} is there", flush=True)
    return ""


def main() -> None:
    """Train as the arguments say."""
    parser = argparse.ArgumentParser(description="Train a tiny model through an orchestrator.")
    parser.add_argument("address", help="host:port of the orchestrator")
    parser.add_argument("--backend", default="unet")
    parser.add_argument("--seconds", type=float, default=600.0, help="longest time")
    arguments = parser.parse_args()
    try:
        use_tls(load(ServerSettings).client_tls())
        problem = train(arguments.address, arguments.backend, arguments.seconds)
    except CellsparseError as error:
        problem = error.message
    except grpc.RpcError as error:
        problem = f"{arguments.address} answers {error.code().name}: {error.details()}"
    sys.exit(problem or 0)


if __name__ == "__main__":
    main()
