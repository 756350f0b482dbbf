"""Everybody at once on one orchestrator: watchers of runs, predicting clients and uploads, on real services and MinIO.

Measured alone and then together: predictions per second of one client and of many, and the throughput of uploads beside
that of the plain `minio` SDK: first of files by their hash, which go to URLs of the store, then of whole datasets,
whose files the orchestrator decodes and checks besides. Uploads and the SDK take turns, while all others go on, over
equally many connections: what one of them gets, the other could have had. Shown are the times of GetStatus meanwhile,
as a process of its own sees them, the shares that are left of predictions and uploads, and the memory of the
orchestrator. At the end the SDK has the machine to itself.

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
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import tifffile
import urllib3
from minio import Minio
from support.interrupts import sigterm_interrupts
from support.minio import find_minio, running_minio, store_environment
from support.orchestrator import Orchestrator
from support.tiny_dataset import blobs

from cellsparse import Client
from cellsparse.errors import CellsparseError
from cellsparse.upload_queue import UploadQueue
from cellsparse.uploads import PUTS_AT_ONCE, Sender, hashed
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_proto.v1 import orchestrator_pb2, orchestrator_pb2_grpc

SIDE, UPLOAD_SIDE = 256, 1448
AIMS = {"status_p99_ms": 200.0, "predictions_share": 0.9, "file_share": 0.8, "orchestrator_mib": 400.0}
BUCKET = "load"
TURNS = ("file", "plain", "file", "plain", "dataset", "plain")
"""What is sent, one after the other; "plain" is what the SDK sends."""


Rates = dict[str, tuple[float, float]]
"""MiB per second of uploads and of the SDK, by what is uploaded."""


class Loop(threading.Thread):
    """Does something over and over until the time is up, and counts.

    Args:
        work: What to do.
        end: When to stop, as `time.monotonic` has it; may be changed meanwhile.
        pause: Seconds between.
    """

    def __init__(self, work: Callable[[], object], end: float, pause: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.seconds: list[float] = []
        self.errors: list[str] = []
        self.end = end
        self._work, self._pause = work, pause

    def run(self) -> None:
        """Work."""
        while time.monotonic() < self.end:
            begin = time.monotonic()
            try:
                self._work()
                self.seconds.append(time.monotonic() - begin)
            except CellsparseError as error:
                self.errors.append(error.message)
            time.sleep(self._pause)


def ask_status(address: str, begun: "Event", stop: "Event", answers: "Queue[list[float]]") -> None:
    """Ask for the status all the time, in a process that does nothing else, and tell how long each answer took (s)."""
    with Client(address) as client:
        client.status(timeout=30)
        loop = Loop(lambda: client.status(timeout=30), float("inf"), pause=0.05)
        loop.start()
        begun.set()
        stop.wait()
        loop.end = 0.0
        loop.join()
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


@dataclass
class Sent:
    """Bytes that were sent, and how long it took (s)."""

    size: int = 0
    seconds: float = 0.0

    def add(self, upload: Callable[[], int], seconds: float, parallel: int) -> None:
        """Go on with uploads of so many bytes each."""
        sizes: list[int] = []
        begin = time.monotonic()
        loops = [Loop(lambda: sizes.append(upload()), begin + seconds) for _ in range(parallel)]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()
        self.size += sum(sizes)
        self.seconds += time.monotonic() - begin

    @property
    def rate(self) -> float:
        """MiB per second."""
        return self.size / self.seconds / 2**20


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
            at = counts.valueoffset + size * (counts.count - 1)
            self._before, self._after = data[:at], data[at + size : page.dataoffsets[-1]]
            self._size = size

    def __call__(self) -> bytes:
        """Return another file."""
        row = np.frombuffer(os.urandom(self.shape[1]), np.uint8)[None]
        sample = encode_tiff(row)
        with tifffile.TiffFile(io.BytesIO(sample)) as file:
            page: Any = file.pages[0]
            strip = sample[page.dataoffsets[0] : page.dataoffsets[0] + page.databytecounts[0]]
        return b"".join((self._before, len(strip).to_bytes(self._size, "little"), self._after, strip))


def measure(options: argparse.Namespace, orchestrator: Orchestrator, plain: Minio) -> dict[str, object]:
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
        size = 0
        with UploadQueue(Sender(client().connection)) as queue:
            for _ in range(options.files):
                blob = hashed(fresh(), "file")
                queue.add(blob)
                size += blob.size
        return size

    def upload() -> int:
        file = fresh()
        client().create_dataset(f"load-{os.urandom(4).hex()}", [("a", "train", file, label_file)])
        return len(file)

    def put() -> int:
        file = fresh()
        plain.put_object(BUCKET, f"plain/{os.urandom(8).hex()}", io.BytesIO(file), len(file))
        return len(file)

    client().predict(run.id, image)
    alone = Loop(predict, time.monotonic() + options.seconds / 4)
    alone.run()
    one_client = len(alone.seconds) / sum(alone.seconds)

    longest = time.monotonic() + 3 * options.seconds + 120
    opened: list[int] = []
    channels = [watch(orchestrator.address, waiting.id, longest, opened) for _ in range(options.watchers // 50)]
    limit = time.monotonic() + 15
    while len(opened) < options.watchers and time.monotonic() < limit:
        time.sleep(0.1)
    memory: list[float] = []
    processes = multiprocessing.get_context("spawn")
    answers, asking, stop = processes.Queue(), processes.Event(), processes.Event()
    status = processes.Process(target=ask_status, args=(orchestrator.address, asking, stop, answers))
    status.start()
    asking.wait(60)
    rss = Loop(lambda: memory.append(orchestrator_process.memory_info().rss / 2**20), longest, pause=0.2)
    predicting = [Loop(predict, longest) for _ in range(options.clients)]
    begin = time.monotonic()
    for each in [rss, *predicting]:
        each.start()
    connections = options.uploads * PUTS_AT_ONCE
    kinds = {"file": (send, options.uploads), "dataset": (upload, options.uploads), "plain": (put, connections)}
    rates = both_at_once(options, kinds) if options.beside else by_turns(options, kinds)
    stop.set()
    times = sorted(1000 * each for each in answers.get(timeout=60))
    for loop in [rss, *predicting]:
        loop.end = 0.0
    for each in [status, rss, *predicting]:
        each.join()
    took = time.monotonic() - begin
    for channel in channels:
        channel.close()
    by_itself = Sent()
    by_itself.add(put, options.seconds / 4, connections)
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
        **{f"{name}_mib_per_second": ours for name, (ours, _) in rates.items()},
        **{f"minio_mib_per_second_beside_{name}": theirs for name, (_, theirs) in rates.items()},
        "minio_mib_per_second_by_itself": by_itself.rate,
        **{f"{name}_share": ours / theirs for name, (ours, theirs) in rates.items()},
        **{f"{name}_share_of_minio_by_itself": ours / by_itself.rate for name, (ours, _) in rates.items()},
        "orchestrator_mib": max(memory),
    }


def by_turns(options: argparse.Namespace, kinds: Mapping[str, tuple[Callable[[], int], int]]) -> Rates:
    """Return MiB per second of uploads and of the SDK, which send one after the other."""
    sent = {name: Sent() for name in kinds}
    for name in TURNS:
        work, parallel = kinds[name]
        sent[name].add(work, options.seconds / len(TURNS), parallel)
    return {name: (each.rate, sent["plain"].rate) for name, each in sent.items() if name != "plain"}


def both_at_once(options: argparse.Namespace, kinds: Mapping[str, tuple[Callable[[], int], int]]) -> Rates:
    """Return MiB per second of uploads and of the SDK, which send at the same time."""
    rates = {}
    for name in ("file", "dataset"):
        ours, theirs = Sent(), Sent()
        with ThreadPoolExecutor(2) as both:
            tasks = [
                both.submit(each.add, *(kinds[kind][0], options.seconds / 2, kinds[kind][1]))
                for each, kind in ((ours, name), (theirs, "plain"))
            ]
        for task in tasks:
            task.result()
        rates[name] = ours.rate, theirs.rate
    return rates


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
    parser.add_argument("--beside", action="store_true", help="let the plain SDK send at the same time, not by turns")
    parser.add_argument("--out", type=Path, default=Path("out/bench/load.json"))
    options = parser.parse_args()
    find_minio()
    with tempfile.TemporaryDirectory() as folder, running_minio(Path(folder)) as server:
        settings = server.settings(f"s3://{BUCKET}")
        plain = Minio(
            server.endpoint,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key.get_secret_value(),
            secure=False,
            region=settings.s3_region,
            http_client=urllib3.PoolManager(maxsize=options.uploads * PUTS_AT_ONCE),
        )
        plain.make_bucket(BUCKET)
        store = store_environment(settings)
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
