"""What forking a training process saves: `python benchmarks/fork_server.py [backend] [times]`, seconds on this machine.

Three ways in one run: from nothing, by the trainer's fork server, and by `multiprocessing`'s. Each trains the smallest
model for one step; medians of `times` runs (5) of the seconds until the attempt ends and of its processor time, and the
memory that one process takes (USS: what is its own; PSS: its share of pages, too) while it trains.
"""

import dataclasses
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from stdlib_fork_server import StdlibForkServer
from support.tiny_dataset import write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.storage import FolderStore, open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.contract import find_backend
from cellsparse_trainer.processes.attempts import Attempts, AttemptSettings
from cellsparse_trainer.training.resolution import Resolution

SMALLEST = {
    "cellpose": {"cellpose": {}},
    "stardist": {"stardist": {"n_rays": 8, "unet_depth": 1, "unet_filters": 4, "features": 4}},
    "unet": {"unet": {"base_channels": 4}},
}


def begin(attempts: Attempts, backend: str, run_id: str, steps: int):
    settings = trainer_pb2.TrainingSettings(
        steps=steps, batch_size=1, crop_size=32, validate_every_steps=max(steps, 10), **SMALLEST[backend]
    )
    request = trainer_pb2.StartTrainingRequest(run_id=run_id, attempt=1, dataset_id="ds-tiny", settings=settings)
    _, inputs = Resolution(find_backend(f"cellsparse_{backend}").light(), open_store(StoreSettings()))(request)
    attempts.start(request, inputs)
    return attempts._attempts[run_id, 1]


def until(condition, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


def seconds_to_end(attempts: Attempts, backend: str, run_id: str) -> tuple[float, float]:
    """Return wall and processor time; raise if the attempt fails."""
    began = time.perf_counter()
    attempt = begin(attempts, backend, run_id, 1)
    process, cpu = psutil.Process(attempt._process.pid), 0.0
    while not attempt.log.ended:
        try:
            times = process.cpu_times()
            cpu = times.user + times.system
        except psutil.Error:
            pass
        time.sleep(0.02)
    took = time.perf_counter() - began
    last = list(attempt.log.follow(0, lambda: True))[-1]
    if last.state != common_pb2.RUN_STATE_SUCCEEDED:
        raise RuntimeError(last.message)
    return took, cpu


def memory(attempts: Attempts, backend: str, run_id: str) -> tuple[float, float]:
    """Return USS and PSS in MiB."""
    attempt = begin(attempts, backend, run_id, 100_000)
    until(lambda: '"step"' in (attempt.job.folder / "events.jsonl").read_text())
    found = psutil.Process(attempt._process.pid).memory_full_info()
    attempts.stop(run_id, 1)
    return found.uss / 2**20, found.pss / 2**20


def measure(name: str, attempts: Attempts, backend: str, times: int) -> None:
    prefix = f"run-{name.replace(' ', '-')}"
    runs = [seconds_to_end(attempts, backend, f"{prefix}-{number}") for number in range(times)]
    wall, cpu = (statistics.median(values) for values in zip(*runs, strict=True))
    uss, pss = memory(attempts, backend, f"{prefix}-memory")
    print(f"{backend}, {name}: {wall:.2f} s, processor {cpu:.2f} s, USS {uss:.0f} MiB, PSS {pss:.0f} MiB", flush=True)


def main() -> None:
    backend = sys.argv[1] if len(sys.argv) > 1 else "unet"
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    spec = find_backend(f"cellsparse_{backend}")

    def attempts(name: str, warm_seconds: float = 0.0) -> Attempts:
        how = AttemptSettings(package=spec.package, preload=spec.preload, stop_seconds=20.0, warm_seconds=warm_seconds)
        return Attempts(how, Path(folder) / name, store)

    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder) / "store")
        write_dataset(store)
        os.environ["CELLSPARSE_STORE_URL"] = store.url

        plain = attempts("plain")
        measure("from nothing", plain, backend, times)

        own = attempts("own", 600.0)
        for number in range(2):
            seconds_to_end(own, backend, f"run-warm-{number}")
        until(own._fork_server._is_ready)
        measure("own fork server", own, backend, times)
        print(f"  its server: {size(own._fork_server._process.pid)}")
        own.close()

        theirs = attempts("theirs")
        server = StdlibForkServer(spec.preload)
        theirs._supervision = dataclasses.replace(theirs._supervision, fork_server=server)
        before = {child.pid for child in psutil.Process().children()}
        server.warm_up()
        measure("standard fork server", theirs, backend, times)
        for child in psutil.Process().children():
            if child.pid not in before:
                print(f"  its server or resource tracker: {size(child.pid)}")


def size(pid: int) -> str:
    found = psutil.Process(pid).memory_full_info()
    return f"USS {found.uss / 2**20:.0f} MiB, PSS {found.pss / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
