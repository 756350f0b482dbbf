"""Everybody at once on one orchestrator: watchers of runs, predicting clients and uploads, on real services and MinIO.

Measured alone and then together: predictions per second of one client and of many, and the throughput of the plain
`minio` SDK beside that of uploads: first of files by their hash, which go to URLs of the store, then of whole datasets,
whose files the orchestrator decodes and checks besides. Shown are the times of GetStatus meanwhile, as a process of its
own sees them, the shares that are left of predictions and uploads, and the memory of the orchestrator.

The trainer is one without a framework, whose predictions take a fixed time: what is measured is everything around the
network. On two cores a real network would share them with the uploads, which says nothing about the queue.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import tifffile
from support.interrupts import sigterm_interrupts
from support.minio import find_minio, running_minio, store_environment
from support.orchestrator import Orchestrator
from support.tiny_dataset import blobs

from cellsparse import Client
from cellsparse.errors import CellsparseError
from cellsparse.uploads import Sender, hashed
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_proto.v1 import orchestrator_pb2, orchestrator_pb2_grpc

SIDE, UPLOAD_SIDE = 256, 1448
AIMS = {"status_p99_ms": 200.0, "predictions_share": 0.9, "upload_share": 0.8, "orchestrator_mib": 400.0}
BUCKET = "load"


class Loop(threading.Thread):
    """Does something over and over until the time is up, and counts.

    Args:
        work: What to do.
        end: When to stop, as `time.monotonic` has it.
        pause: Seconds between.
    """

    def __init__(self, work: Callable[[], object], end: float, pause: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self._work, self._end, self._pause = work, end, pause

    def run(self) -> None:
        """Work."""
        while time.monotonic() < self._end:
            begin = time.monotonic()
            try:
                self._work()
                self.seconds.append(time.monotonic() - begin)
            except CellsparseError as error:
                self.errors.append(error.message)
            time.sleep(self._pause)


def ask_status(address: str, seconds: float, answers: "Queue[list[float]]") -> None:
    """Ask for the status all the time, in a process that does nothing else, and tell how long each answer took (s)."""
    with Client(address) as client:
        loop = Loop(lambda: client.status(timeout=30), time.monotonic() + seconds, pause=0.05)
        loop.run()
    answers.put(loop.seconds)


def watch(address: str, run_id: str, end: float, opened: list[int]) -> grpc.Channel:
    """Watch a run on a connection for many streams, of which each counts itself in `opened`."""
    channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)

    def follow(_: int) -> None:
        stream = stub.WatchRun(orchestrator_pb2.WatchRunRequest(run_id=run_id), timeout=end - time.monotonic())
        try:
            for number, _event in enumerate(stream):
                if number == 0:
                    opened.append(1)
        except grpc.RpcError:
            return

    for number in range(50):
        threading.Thread(target=follow, args=(number,), daemon=True).start()
    return channel


def megabytes_per_second(upload: Callable[[], int], seconds: float, parallel: int) -> float:
    """Return the throughput of uploads of so many bytes each."""
    sent: list[int] = []
    begin = time.monotonic()
    loops = [Loop(lambda: sent.append(upload()), begin + seconds) for _ in range(parallel)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join()
    return sum(sent) / (time.monotonic() - begin) / 2**20


class FreshFiles:
    """TIFF files of noise that all differ, made without compressing more than their last row.

    Files that were sent once are not sent again, so that equal ones would measure nothing.
    """

    def __init__(self, side: int) -> None:
        rows = 2**18 // side  # of a strip, as they are written
        pixels = np.random.default_rng(0).integers(0, 255, (side // rows * rows + 1, side), dtype=np.uint8)
        self.shape = pixels.shape
        data = encode_tiff(pixels)
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page: Any = file.pages[0]
            counts = page.tags[279]
            size = {3: 2, 4: 4}[counts.dtype]
            self._count = (counts.valueoffset + size * (counts.count - 1), size)
            self._data = data[: page.dataoffsets[-1]]

    def __call__(self) -> bytes:
        """Return another file."""
        row = np.frombuffer(os.urandom(self.shape[1]), np.uint8)[None]
        sample = encode_tiff(row)
        with tifffile.TiffFile(io.BytesIO(sample)) as file:
            page: Any = file.pages[0]
            strip = sample[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]]
        data, (at, size) = bytearray(self._data + strip), self._count
        data[at : at + size] = len(strip).to_bytes(size, "little")
        return bytes(data)


def measure(options: argparse.Namespace, orchestrator: Orchestrator, plain: object) -> dict[str, object]:
    """Return the figures of one orchestrator."""
    orchestrator.healthy("unet")
    run = orchestrator.train(orchestrator.upload().id, steps=3)
    list(orchestrator.watch(run.id))
    # One that takes hours and little processor time.
    waiting = orchestrator.train(orchestrator.upload().id, steps=1_000_000, learning_rate=0.9)
    orchestrator_process = psutil.Process(orchestrator.pid)
    image = blobs(SIDE, seed=1)[0]
    fresh = FreshFiles(UPLOAD_SIDE)
    label = np.full(fresh.shape, -1, np.int32)
    label[:40, :40], label[60:90, 60:90] = 0, 1
    label_file = encode_labels(label)
    clients = threading.local()

    def client() -> Client:
        if not hasattr(clients, "one"):
            clients.one = Client(orchestrator.address, timeout=120)
        return clients.one

    def predict() -> object:
        return client().predict(run.id, image)

    def send() -> int:
        files = [fresh() for _ in range(options.files)]
        Sender(client().connection).send([hashed(file, "file") for file in files])
        return sum(map(len, files))

    def upload() -> int:
        file = fresh()
        client().create_dataset(f"load-{os.urandom(4).hex()}", [("a", "train", file, label_file)])
        return len(file)

    def put() -> int:
        file = fresh()
        plain.put_object(BUCKET, f"plain/{os.urandom(8).hex()}", io.BytesIO(file), len(file))  # type: ignore[attr-defined]
        return len(file)

    client().predict(run.id, image)
    alone = Loop(predict, time.monotonic() + options.seconds / 4)
    alone.run()
    one_client = len(alone.seconds) / sum(alone.seconds)

    end, opened = time.monotonic() + options.seconds + 15, []
    channels = [watch(orchestrator.address, waiting.id, end, opened) for _ in range(options.watchers // 50)]
    limit = time.monotonic() + 15
    while len(opened) < options.watchers and time.monotonic() < limit:
        time.sleep(0.1)
    end = time.monotonic() + options.seconds
    memory: list[float] = []
    processes = multiprocessing.get_context("spawn")
    answers = processes.Queue()
    status = processes.Process(target=ask_status, args=(orchestrator.address, options.seconds - 5, answers))
    rss = Loop(lambda: memory.append(orchestrator_process.memory_info().rss / 2**20), end, pause=0.2)
    predicting = [Loop(predict, end) for _ in range(options.clients)]
    begin = time.monotonic()
    for each in [status, rss, *predicting]:
        each.start()
    rates = {}
    for name, work in (("upload", send), ("dataset", upload)):
        with ThreadPoolExecutor(2) as both:
            # Both at the same time: what the plain SDK gets beside the same load is what there is to get.
            ours = both.submit(megabytes_per_second, work, options.seconds / 2, options.uploads)
            theirs = both.submit(
                megabytes_per_second, put, options.seconds / 2, options.uploads if options.beside else 0
            )
            rates[name] = ours.result(), theirs.result()
    times = sorted(1000 * each for each in answers.get(timeout=60))
    for each in [status, rss, *predicting]:
        each.join()
    took = time.monotonic() - begin
    if not options.beside:
        after = megabytes_per_second(put, options.seconds / 4, options.uploads)
        rates = {name: (ours_rate, after) for name, (ours_rate, _) in rates.items()}
    for channel in channels:
        channel.close()
    counts = sorted(len(loop.seconds) for loop in predicting)
    together = sum(counts) / took
    return {
        "watchers_open": len(opened),
        "status_calls": len(times),
        "status_p50_ms": statistics.median(times),
        "status_p99_ms": times[min(len(times) - 1, int(0.99 * len(times)))],
        "one_client_per_second": one_client,
        "predictions_per_second": together,
        "predictions_share": together / one_client,
        "predictions_of_a_client": [counts[0], counts[-1]],
        "prediction_errors": sum(len(loop.errors) for loop in predicting),
        **{f"{name}_mib_per_second": ours_rate for name, (ours_rate, _) in rates.items()},
        **{f"minio_mib_per_second_beside_{name}": theirs_rate for name, (_, theirs_rate) in rates.items()},
        **{f"{name}_share": ours_rate / theirs_rate for name, (ours_rate, theirs_rate) in rates.items()},
        "orchestrator_mib": max(memory),
    }


def main() -> None:
    """Measure and write the figures."""
    sigterm_interrupts()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long all work together")
    parser.add_argument("--watchers", type=int, default=500, help="streams that watch a run, a multiple of 50")
    parser.add_argument("--clients", type=int, default=50, help="clients that predict")
    parser.add_argument("--uploads", type=int, default=20, help="uploads at once")
    parser.add_argument("--predict-seconds", type=float, default=0.1, help="what a prediction takes")
    parser.add_argument("--files", type=int, default=16, help="files that are sent together")
    parser.add_argument("--beside", action="store_true", help="let the plain SDK upload at the same time, not after it")
    parser.add_argument("--out", type=Path, default=Path("out/bench/load.json"))
    options = parser.parse_args()
    find_minio()
    with tempfile.TemporaryDirectory() as folder, running_minio(Path(folder)) as server:
        plain = server.client()
        plain.make_bucket(BUCKET)
        store = store_environment(server.settings(f"s3://{BUCKET}"))
        home = Path(folder) / "home"
        extra = {
            "CELLSPARSE_FAKE_PREDICT_SECONDS": f"{options.predict_seconds}",
            # What one machine may have of each: here it plays all.
            "CELLSPARSE_WORKERS": str(max(128, 2 * options.clients + 4 * options.uploads)),
            "CELLSPARSE_WATCHERS": str(max(1024, 2 * options.watchers)),
            "CELLSPARSE_UPLOAD_URL_MIB": "1",
        }
        with Orchestrator(home, **{**store, **extra}) as orchestrator:
            figures = measure(options, orchestrator, plain)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        aim = f"   (aim: {AIMS[name]:g})" if name in AIMS else ""
        print(f"{name:36} {value if isinstance(value, list) else f'{value:.2f}'}{aim}")


if __name__ == "__main__":
    main()
