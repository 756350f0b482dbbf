"""All containers as one system: health, sparse labels, one tiny training and prediction per trainer, an orderly end."""

import socket
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt
from images.containers import Docker
from images.service_images import GATEWAY, IMAGES, ORCHESTRATOR, SPARSIFIER, TRAINERS
from support.tiny_dataset import blobs

from cellsparse import Client
from cellsparse.errors import CellsparseError
from cellsparse_common.rpc.health import check
from cellsparse_proto.v1 import common_pb2

HOME = "/var/lib/cellsparse"
START_SECONDS = 180.0
TRAINING_SECONDS = 600.0
ENDED = (common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_FAILED, common_pb2.RUN_STATE_CANCELLED)
SETTINGS: dict[str, Any] = {"steps": 4, "batch_size": 2, "crop_size": 64, "seed": 1}
# Fresh weights of a tiny network: the image holds none of the real one.
OWN_SETTINGS = {"cellpose_sam": {"crop_size": 256, "encoder_depth": 1, "encoder_width": 16, "encoder_heads": 2}}


def try_system(docker: Docker, references: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Start a container of every image and train with each trainer.

    Args:
        docker: Where the images are.
        references: Full image names by service folder.

    Returns:
        Measured seconds for the report, and a sentence per fault.

    Raises:
        DockerError: A container cannot be started.
    """
    faults: list[str] = []
    measured: dict[str, Any] = {}
    with running(docker, references) as addresses:
        begin = time.monotonic()
        answers = {folder: wait_for_answer(folder, address) for folder, address in addresses.items()}
        silent = {folder: problem for folder, problem in answers.items() if problem}
        measured["all_answer_after_seconds"] = round(time.monotonic() - begin, 1)
        faults += [f"{folder}: {problem}" for folder, problem in silent.items()]
        for folder, name in zip(addresses, docker.started, strict=True):
            if not docker.healthy(name, START_SECONDS):
                faults.append(f"{folder}: its own health check fails.\n{docker.logs(name)}")
            if docker.writable(name, "/opt/mark"):
                faults.append(f"{folder}: its root file system can be written to.")
            if not docker.writable(name, "/tmp/mark"):
                faults.append(f"{folder}: /tmp cannot be written to.")
        if not faults:
            measured |= train_each(docker, addresses, faults)
        for folder, name in zip(addresses, docker.started, strict=True):
            if code := docker.stop(name):
                faults.append(f"{folder}: SIGTERM ended it with exit code {code}.\n{docker.logs(name)}")
    return measured, faults


@contextmanager
def running(docker: Docker, references: dict[str, str]) -> Iterator[dict[str, str]]:
    """Start all services around one volume; yield host:port by folder, the orchestrator first."""
    with ExitStack() as ports:
        order = (ORCHESTRATOR, *(image for image in IMAGES if image is not ORCHESTRATOR))
        addresses = {image.folder: f"127.0.0.1:{_free_port(ports)}" for image in order}
    mark = uuid.uuid4().hex[:8]
    volume = f"cellsparse-images-check-{mark}"
    trainers = ",".join(f"{backend}={addresses[image.folder]}" for backend, image in TRAINERS.items())
    shared = {"CELLSPARSE_STORE_URL": f"file://{HOME}/store", "CELLSPARSE_METRICS_PORT": "0"}
    own = {
        ORCHESTRATOR.folder: {
            "CELLSPARSE_LAUNCHER": "static",
            "CELLSPARSE_TRAINERS": trainers,
            "CELLSPARSE_SPARSIFIER": addresses[SPARSIFIER.folder],
        },
        GATEWAY.folder: {
            "CELLSPARSE_GATEWAY_ORCHESTRATOR": addresses[ORCHESTRATOR.folder],
            "CELLSPARSE_GATEWAY_HOST": "127.0.0.1",
            "CELLSPARSE_GATEWAY_PORT": addresses[GATEWAY.folder].partition(":")[2],
        },
    }
    docker.ask("volume", "create", volume)
    try:
        for image in order:
            host, _, port = addresses[image.folder].partition(":")
            listen = {"CELLSPARSE_HOST": host, "CELLSPARSE_PORT": port}
            environment = {**shared, **listen, **own.get(image.folder, {})}
            # The first container gives the new volume the owner that its image gave the folder.
            docker.start(
                f"cellsparse-check-{image.folder}-{mark}", references[image.folder], f"{volume}:{HOME}", environment
            )
        yield addresses
    finally:
        docker.remove_all()
        docker.ask("volume", "rm", volume)


def wait_for_answer(folder: str, address: str) -> str:
    """Wait for SERVING; return what is wrong if it does not come."""
    end = time.monotonic() + START_SECONDS
    while (problem := ask_page(address) if folder == GATEWAY.folder else check(address)) and time.monotonic() < end:
        time.sleep(0.2)
    return problem


def ask_page(address: str) -> str:
    """Return what is wrong with the gateway, asked through it for the orchestrator; empty if nothing is."""
    try:
        with urllib.request.urlopen(f"http://{address}/readyz", timeout=5) as answer:
            return "" if answer.status == HTTPStatus.OK else f"It answers {answer.status}."
    except OSError as error:
        return f"It does not answer: {error}."


def train_each(docker: Docker, addresses: dict[str, str], faults: list[str]) -> dict[str, float]:
    """Upload, sparsify, and train and predict with every backend; add to `faults`, return seconds by backend."""
    seconds = {}
    with Client(addresses[ORCHESTRATOR.folder]) as client:
        end = time.monotonic() + START_SECONDS
        while not all(service.healthy for service in client.status().services) and time.monotonic() < end:
            time.sleep(0.5)
        items = [(f"item{n}", split, *blobs(96, seed=n)) for n, split in enumerate(("train", "val", "test"))]
        dataset = client.create_dataset("tiny", items)
        few = client.sparsify(dataset.id, mode="minmax", k=1, background="shifted")
        for backend, image in TRAINERS.items():
            begin = time.monotonic()
            try:
                fault = _train_and_predict(client, few.id, backend, items[2][2])
            except CellsparseError as error:
                fault = str(error)
            seconds[f"{image.folder}_training_and_prediction_seconds"] = round(time.monotonic() - begin, 1)
            if fault:
                log = docker.logs(next(name for name in docker.started if image.folder in name))
                faults.append(f"{backend}: {fault}\n{log}")
    return seconds


def _train_and_predict(client: Client, dataset_id: str, backend: str, image: npt.NDArray[np.uint8]) -> str:
    """Return what went wrong; empty if all went well."""
    run = client.train(dataset_id, backend, max_attempts=1, **{**SETTINGS, **OWN_SETTINGS.get(backend, {})})
    end = time.monotonic() + TRAINING_SECONDS
    while (state := run.info().state) not in ENDED and time.monotonic() < end:
        time.sleep(0.5)
    if state != common_pb2.RUN_STATE_SUCCEEDED:
        return f"after {TRAINING_SECONDS:g} s at most the training is {run.info()}"
    labels = client.predict(run.id, image)
    return "" if labels.shape == image.shape else f"labels have shape {labels.shape}, the image {image.shape}"


def _free_port(ports: ExitStack) -> int:
    listener = ports.enter_context(socket.create_server(("127.0.0.1", 0)))
    port: int = listener.getsockname()[1]
    return port
