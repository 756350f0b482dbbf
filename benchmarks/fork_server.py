"""What forking a training process costs and saves: `python benchmarks/fork_server.py [package]`, on this machine.

Two ways in one run: the trainer's own fork server, and `multiprocessing`'s. Each loads the backend once, then forks ten
processes that end at once, because their job does not exist, and one that waits. Times are medians; USS is the memory
that a process has to itself, PSS includes its share of common pages.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.forkserver import _forkserver
from pathlib import Path

import psutil
from stdlib_fork_server import StdlibForkServer

from cellsparse_trainer.contract import find_backend
from cellsparse_trainer.processes.fork_server import WORKER, ForkServer

FORKS = 10
SECONDS = 300.0


def size(pid: int) -> str:
    found = psutil.Process(pid).memory_full_info()
    return f"USS {found.uss / 2**20:.0f} MiB, PSS {found.pss / 2**20:.0f} MiB"


def children_cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.children_user + times.children_system


def measure(name: str, start: Callable, pid: int) -> None:
    started, ended, cpu = [], [], children_cpu(pid)
    for _ in range(FORKS):
        began = time.perf_counter()
        process = start([*WORKER, "/nonexistent"], dict(os.environ))
        started.append(time.perf_counter() - began)
        process.wait(SECONDS)
        ended.append(time.perf_counter() - began)
    cpu = (children_cpu(pid) - cpu) / FORKS
    print(
        f"{name}: start() takes {statistics.median(started):.3f} s, the process ends after "
        f"{statistics.median(ended):.2f} s, its processor time {cpu:.2f} s"
    )
    with tempfile.TemporaryDirectory() as folder:
        fifo = Path(folder) / "job"
        os.mkfifo(fifo)
        waiting = start([*WORKER, str(fifo)], dict(os.environ))  # until somebody writes its job
        time.sleep(5)
        print(f"  its process: {size(waiting.pid)}; the server: {size(pid)}", flush=True)
        waiting.terminate()
        os.kill(waiting.pid, 9)
        waiting.wait(SECONDS)


def main() -> None:
    module = find_backend(sys.argv[1] if len(sys.argv) > 1 else "cellsparse_unet").preload
    began = time.perf_counter()
    own = ForkServer(module, 600.0)
    own.start([*WORKER, "/nonexistent"], dict(os.environ)).wait(SECONDS)
    print(f"{module}: the own server's first process ends after {time.perf_counter() - began:.1f} s")
    measure("own", own.start, own._process.pid)
    own.close()
    standard = StdlibForkServer(module)
    began = time.perf_counter()
    standard.warm_up()
    print(f"multiprocessing's server is ready after {time.perf_counter() - began:.1f} s")
    measure("multiprocessing", standard.start, _forkserver._forkserver_pid)
    others = [child.pid for child in psutil.Process().children() if child.pid != _forkserver._forkserver_pid]
    for pid in others:
        print(f"  resource tracker: {size(pid)}")
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import cellsparse_trainer.training.worker, {module}"], check=True)
    print(f"from nothing, the imports alone: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
