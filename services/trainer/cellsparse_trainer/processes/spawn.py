"""Starts one worker per rank of this node: `python -m cellsparse_trainer.processes.spawn JOB PLACEMENT`.

It is to other frameworks what torchrun is to torch. Workers get their ranks, and `TF_CONFIG` for TensorFlow's
MultiWorkerMirroredStrategy. When one fails, the others are ended. SIGTERM is passed on. When standard input closes,
workers end by themselves.

torchrun itself needs torch, which the image of TensorFlow must not hold.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cellsparse_trainer.processes.launch import Placement, alone

_POLL_SECONDS = 0.1
_STOP_SECONDS = 30.0


def environment(placement: Placement, local: int) -> dict[str, str]:
    """Return the variables of one of this node's processes, by its number on the node."""
    rank = placement.node * placement.processes + local
    task = {"cluster": {"worker": placement.workers()}, "task": {"type": "worker", "index": rank}}
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(placement.world),
        "LOCAL_RANK": str(local),
        "TF_CONFIG": json.dumps(task),
    }


def run(job: Path, placement: Placement) -> int:
    """Run the workers; return 0, or the code of the first that failed."""
    workers = [
        subprocess.Popen(alone(job), env={**os.environ, **environment(placement, local)})
        for local in range(placement.processes)
    ]

    def stop(*_: object) -> None:
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, stop)
    while any(worker.poll() is None for worker in workers):
        failed = next((worker.returncode for worker in workers if worker.returncode), 0)
        if failed:
            _end(workers)
            return failed
        time.sleep(_POLL_SECONDS)
    return next((worker.returncode for worker in workers if worker.returncode), 0)


def _end(workers: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    for worker in workers:
        if worker.poll() is None:
            worker.terminate()
    for worker in workers:
        try:
            worker.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def main() -> None:
    """Run the workers of the job and placement given as arguments."""
    record = json.loads(sys.argv[2])
    placement = Placement(**{**record, "hosts": tuple(record["hosts"])})
    code = run(Path(sys.argv[1]), placement)
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
