"""Measure the cost of an orchestrator with thousands of training Jobs in a real Kubernetes control plane.

Usage: PYTHONPATH=tests python benchmarks/jobs.py [--jobs 5000] [--seconds 60] [--out FILE] (`make bench-jobs`).

All runs begin at once. Each has a Job, a Service and a pod on a node where nothing starts. The benchmark measures the
orchestrator's processor time and memory at rest, and all requests that the API server counts meanwhile (no LIST means
that no client polls). Then it measures how long it takes to cancel runs, and the cost of a restart.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from kubernetes import client
from support.cluster import cluster_orchestrator, give_rights, trainer
from support.control_plane import ControlPlane, new_namespace, running_control_plane
from support.orchestrator import Orchestrator, tiny_items, until
from support.orchestrator_cost import (
    BEARS,
    Cost,
    count,
    counted,
    measure,
    queue_runs,
    wait_for_pods,
    wait_for_rest,
    wide_node,
)

from cellsparse_proto.v1 import orchestrator_pb2

ROOT = Path(__file__).resolve().parents[1]
REST_SHARE = 0.2
CANCELLED = 50
SECONDS = 1800.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure at rest")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "jobs.json")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes started here end as well
    with tempfile.TemporaryDirectory() as folder, running_control_plane(Path(folder) / "plane") as plane:
        figures = bench(plane, Path(folder), arguments.jobs, arguments.seconds)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures, indent=1))
    print(f"written to {arguments.out}")


def bench(plane: ControlPlane, folder: Path, jobs: int, seconds: float) -> dict[str, object]:
    with plane.client("admin") as admin, new_namespace(admin) as namespace, wide_node(admin, "wide"):
        give_rights(admin, namespace)
        settings = {"trainers": [trainer("unet", image="none", tolerations=BEARS)]}

        def start() -> Orchestrator:
            return cluster_orchestrator(plane, namespace, folder / "home", settings, CELLSPARSE_SLOTS="10000")

        with start() as there:
            figures: dict[str, object] = {"jobs": jobs, "rss_mib_without_jobs": _rss(there.pid)}
            began = time.monotonic()
            runs = queue_runs(there, there.upload(tiny_items()).id, jobs)
            say(f"{jobs} runs are asked for after {time.monotonic() - began:.0f} s")
            wait_for_pods(admin, namespace, jobs, SECONDS)
            wait_for_rest(there.pid, REST_SHARE, SECONDS)
            say(f"{jobs} Jobs and pods are there, and all is at rest, after {time.monotonic() - began:.0f} s")
            figures["rest"] = _figures(measure(plane, namespace, there.pid, seconds))
            figures["cancel_seconds"] = _cancel(there, runs[:CANCELLED])
        there_are = partial(count, client.BatchV1Api(admin).list_namespaced_job, namespace)
        left = jobs - min(CANCELLED, jobs)
        until(lambda: there_are() == left, SECONDS)  # their pods end only when a node's kubelet reports it
        figures["restart"] = {**_restart(plane, namespace, start), "jobs_kept": there_are() == left}
    return figures


def _cancel(there: Orchestrator, runs: list[str]) -> dict[str, float]:
    """Cancel runs one after the other; return the seconds until each had ended."""
    taken = []
    for run_id in runs:
        began = time.monotonic()
        there.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=run_id), timeout=60)
        for _ in there.watch(run_id):
            pass  # until its last event
        taken.append(time.monotonic() - began)
    return {"median": round(statistics.median(taken), 3), "longest": round(max(taken), 3)}


def _restart(plane: ControlPlane, namespace: str, start: Callable[[], Orchestrator]) -> dict[str, object]:
    """Restart the orchestrator; return its cost and its requests until it is at rest."""
    asked: dict[str, int] = {}
    began = time.monotonic()
    with counted(plane, namespace, asked), start() as there:
        answered = time.monotonic() - began
        wait_for_rest(there.pid, REST_SHARE, SECONDS)
        rested, rss = time.monotonic() - began, _rss(there.pid)
    return {
        "seconds_to_answer": round(answered, 1),
        "seconds_to_rest": round(rested, 1),
        "rss_mib": rss,
        "requests": asked,
    }


def _figures(cost: Cost) -> dict[str, object]:
    return {
        "seconds": round(cost.seconds, 1),
        "cores": round(cost.cores, 4),
        "rss_mib": [round(size, 1) for size in cost.rss_mib],
        "requests": cost.requests,
    }


def _rss(pid: int) -> float:
    return round(psutil.Process(pid).memory_info().rss / 2**20, 1)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
