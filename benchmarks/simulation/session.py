"""One simulation: start the processes, submit the runs, wait for their ends, and collect the figures."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy
from simulation.figures import endings, held_seconds, idle_gaps, queue_figures, rates, spread
from simulation.scenario import Scenario
from support.interrupts import interrupts_wait
from support.orchestrator import messages
from support.server_process import end_process

from cellsparse_common.rpc.channel import open_channel
from cellsparse_proto.v1 import common_pb2, dataset_pb2_grpc, orchestrator_pb2, orchestrator_pb2_grpc, trainer_pb2

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS, _END_SECONDS, _CALL_SECONDS = 300.0, 60.0, 60.0
_ASKED_AT_ONCE = 4
_LOOK_SECONDS = 1.0
_REST_SECONDS, _STILL_SECONDS = 600.0, 10.0
_BUSY_SECONDS = 5.0
"""How long to look at the trainings alone, before clients ask for more runs."""
_SAMPLE_SECONDS = 1.5
"""After this time there is a further sample."""
_LAG_EVENTS = 20_000
"""About this many events are read to find how late they were stored."""


def simulate(scenario: Scenario, folder: Path, *, database: str = "", seconds: float) -> dict[str, Any]:
    """Run a scenario to its end and return its figures.

    Args:
        scenario: What to simulate.
        folder: An empty folder for all files.
        database: SQLAlchemy URL of an empty database; empty for an SQLite file in the folder.
        seconds: Longest time.

    Raises:
        RuntimeError: A process did not start, or the runs did not end in time.
    """
    url = database or f"sqlite:///{folder / 'home' / 'cellsparse.db'}"
    with _process("trainers", scenario, folder) as _:
        port = _wait_for(folder / "port")
        with _process("orchestrator", scenario, folder, port, CELLSPARSE_DATABASE_URL=url) as there:
            began = time.time()
            with open_channel(_wait_for(folder / "address")) as channel:
                runs = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
                dataset = dataset_pb2_grpc.DatasetServiceStub(channel).CreateDataset(messages()).dataset
                asked = _ask(scenario, runs, dataset.id)
                _wait_for_end(runs, there, seconds - (time.time() - began))
    return _collect(scenario, folder, url, asked)


def measure_rest(scenario: Scenario, folder: Path, *, seconds: float) -> dict[str, Any]:
    """Submit all runs of a scenario whose pods never become ready, and return the orchestrator's cost at rest.

    Args:
        scenario: A scenario with a slot for every run.
        folder: An empty folder for all files.
        seconds: How long to measure, once nothing new happens.
    """
    with (
        _process("trainers", scenario, folder) as _,
        _process("orchestrator", scenario, folder, _wait_for(folder / "port")) as there,
        open_channel(_wait_for(folder / "address")) as channel,
    ):
        dataset = dataset_pb2_grpc.DatasetServiceStub(channel).CreateDataset(messages()).dataset
        _ask(scenario, orchestrator_pb2_grpc.OrchestratorServiceStub(channel), dataset.id)
        _wait_for_rest(folder / "samples.jsonl", there)
        began = time.time()
        time.sleep(seconds)
        samples = _samples(folder)
    return {"runs": scenario.runs, **rates(samples, began, began + seconds)}


def measure_requests(
    scenario: Scenario, folder: Path, *, database: str = "", requests: int, batch: int = 1
) -> dict[str, Any]:
    """Let every GPU train, then let clients ask for more runs as fast as they are answered; return the figures.

    Args:
        scenario: A scenario whose trainings do not end meanwhile.
        folder: An empty folder for all files.
        database: As for `simulate`.
        requests: How many runs are asked for, by `_ASKED_AT_ONCE` clients.
        batch: How many of them each call asks for.
    """
    url = database or f"sqlite:///{folder / 'home' / 'cellsparse.db'}"
    with (
        _process("trainers", scenario, folder) as _,
        _process("orchestrator", scenario, folder, _wait_for(folder / "port"), CELLSPARSE_DATABASE_URL=url) as there,
        open_channel(_wait_for(folder / "address")) as channel,
    ):
        dataset = dataset_pb2_grpc.DatasetServiceStub(channel).CreateDataset(messages()).dataset
        runs = orchestrator_pb2_grpc.OrchestratorServiceStub(channel)
        _ask(scenario, runs, dataset.id)
        _wait_until_all_train(runs, there)
        began = time.time()
        time.sleep(_BUSY_SECONDS)
        asked_at = time.time()
        calls = _ask(replace(scenario, runs=requests), runs, dataset.id, batch)
        answered_at = time.time()
        time.sleep(_SAMPLE_SECONDS)
        samples = _samples(folder)
    before, after = rates(samples, began, asked_at), rates(samples, asked_at, answered_at + _SAMPLE_SECONDS)
    seconds = answered_at - asked_at
    more_cpu = (after["cores"] - before["cores"]) * after["seconds"]
    return {
        "nodes": scenario.nodes,
        "trainings": scenario.slots,
        "clients": _ASKED_AT_ONCE,
        "requests": requests,
        "runs_per_call": batch,
        "requests_per_second": round(requests / seconds, 1),
        "call_seconds": spread(calls),
        "cpu_ms_per_request": round(1000 * more_cpu / requests, 2),
        "cores_before": before["cores"],
        "events_per_second_before": before["events_per_second"],
        "cores": after["cores"],
        "transactions_per_second": after["transactions_per_second"],
        "rss_mib": after["rss_mib"],
    }


def _wait_until_all_train(runs: orchestrator_pb2_grpc.OrchestratorServiceStub, there: subprocess.Popen[bytes]) -> None:
    states = [common_pb2.RUN_STATE_QUEUED, common_pb2.RUN_STATE_STARTING]
    request = orchestrator_pb2.ListRunsRequest(states=states, page={"page_size": 1})
    end = time.monotonic() + _REST_SECONDS
    while runs.ListRuns(request, timeout=_CALL_SECONDS).runs:
        if time.monotonic() > end or there.poll() is not None:
            raise RuntimeError(f"Not all runs train after {_REST_SECONDS:g} s.")
        time.sleep(_LOOK_SECONDS)


@contextmanager
def _process(
    module: str, scenario: Scenario, folder: Path, *arguments: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    known = {name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")}
    settings = {
        "PYTHONPATH": f"{ROOT / 'benchmarks'}{os.pathsep}{ROOT / 'tests'}",
        "CELLSPARSE_HOME": str(folder / "home"),
        "CELLSPARSE_PORT": "0",
        "CELLSPARSE_ADDRESS_FILE": str(folder / "address"),
        "CELLSPARSE_SLOTS": str(scenario.slots),
        "CELLSPARSE_WORKERS": "32",
        "CELLSPARSE_RETRY_SECONDS": "0.5",
        "CELLSPARSE_RETRY_LIMIT_SECONDS": "4",
        "CELLSPARSE_LOST_SECONDS": "30",
        "CELLSPARSE_LOG_LEVEL": "WARNING",
        **environment,
    }
    command = [sys.executable, "-m", f"simulation.{module}", scenario.to_json(), str(folder), *arguments]
    (folder / "home").mkdir(parents=True, exist_ok=True)
    process = None
    try:
        with (folder / f"{module}.log").open("wb") as log, interrupts_wait():
            process = subprocess.Popen(command, env=known | settings, stdout=log, stderr=subprocess.STDOUT)
        yield process
    finally:
        end_process(process, _END_SECONDS)


def _wait_for(file: Path) -> str:
    end = time.monotonic() + _START_SECONDS
    while not file.exists():
        if time.monotonic() > end:
            logs = "\n".join(log.read_text(errors="replace")[-2000:] for log in file.parent.glob("*.log"))
            raise RuntimeError(f"{file.name} was not written within {_START_SECONDS:g} s:\n{logs}")
        time.sleep(0.05)
    return file.read_text().strip()


def _ask(
    scenario: Scenario, runs: orchestrator_pb2_grpc.OrchestratorServiceStub, dataset_id: str, batch: int = 1
) -> list[float]:
    """Submit all runs, some in each call; return how long each call took, seconds."""
    chance = random.Random(scenario.seed)
    lengths = [int(1000 * scenario.run_seconds * chance.uniform(0.5, 1.5)) for _ in range(scenario.runs)]

    def ask(several: list[int]) -> float:
        asked = [
            orchestrator_pb2.CreateRunRequest(
                dataset_id=dataset_id,
                settings=trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), steps=milliseconds),
                max_attempts=10,
            )
            for milliseconds in several
        ]
        began = time.perf_counter()
        if batch == 1:
            runs.CreateRun(asked[0], timeout=_CALL_SECONDS)
        else:
            runs.CreateRuns(orchestrator_pb2.CreateRunsRequest(runs=asked), timeout=_CALL_SECONDS)
        return time.perf_counter() - began

    calls = [lengths[first : first + batch] for first in range(0, len(lengths), batch)]
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
        return list(threads.map(ask, calls))


def _wait_for_end(
    runs: orchestrator_pb2_grpc.OrchestratorServiceStub, there: subprocess.Popen[bytes], seconds: float
) -> None:
    end = time.monotonic() + seconds
    while left := runs.GetStatus(orchestrator_pb2.GetStatusRequest(), timeout=_CALL_SECONDS).active_runs:
        if time.monotonic() > end or there.poll() is not None:
            raise RuntimeError(f"{left} runs have not ended after {seconds:.0f} s more.")
        time.sleep(_LOOK_SECONDS)


def _wait_for_rest(samples: Path, there: subprocess.Popen[bytes]) -> None:
    """Wait until nothing has been written to the database for some seconds."""
    end, commits, since = time.monotonic() + _REST_SECONDS, -1.0, time.monotonic()
    while time.monotonic() - since < _STILL_SECONDS:
        if time.monotonic() > end or there.poll() is not None:
            raise RuntimeError(f"The orchestrator did not come to rest within {_REST_SECONDS:g} s.")
        time.sleep(_LOOK_SECONDS)
        found = _samples(samples.parent)[-1].get("commits", 0.0)
        if found != commits:
            commits, since = found, time.monotonic()


def _samples(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]  # the last line may be incomplete


def _collect(scenario: Scenario, folder: Path, url: str, asked: list[float]) -> dict[str, Any]:
    runs, first, lag, stored = _read_database(url)
    record = json.loads((folder / "trainings.json").read_text())
    cluster = json.loads((folder / "pods.json").read_text())
    samples = _samples(folder)
    trainings, pods = record["trainings"], cluster["pods"]
    held = held_seconds(scenario, pods, trainings)
    queue = dict(queue_figures(runs, first, held, scenario.slots))
    began, last_begun = min(training["began"] for training in trainings), max(first.values())
    ended, asked_first = max(run["ended_at"] for run in runs), min(run["created_at"] for run in runs)
    ideal = queue.pop("ideal_end") - asked_first
    return {
        "nodes": scenario.nodes,
        "slots": scenario.slots,
        **endings(runs, trainings, record["twice"], scenario.runs),
        "wall_seconds": round(ended - asked_first, 1),
        "ideal_wall_seconds": round(ideal, 1),
        "node_failures": cluster["node_failures"],
        "pods_lost": sum(bool(pod["lost"]) for pod in pods),
        "create_seconds": spread(asked),
        "create_per_second": round(len(runs) / (max(run["created_at"] for run in runs) - asked_first + 1e-9), 1),
        "queue": queue,
        "begin_latency_seconds": spread(idle_gaps(pods, trainings, {run["id"]: run["created_at"] for run in runs})),
        "event_lag_seconds": spread(lag),
        "events_stored": stored,
        "events_of_trainers": sum(training["told"] for training in trainings),
        "busy": rates(samples, began, last_begun),
        "whole": rates(samples, 0.0, ended),
        "trainers_cpu_seconds": round(record["cpu_seconds"], 1),
    }


def _read_database(url: str) -> tuple[list[dict[str, Any]], dict[str, float], list[float], int]:
    """Return the runs in queue order, when each first began, how late events were stored, and the number of events."""
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(
            sqlalchemy.text("SELECT id, state, attempts, created_at, ended_at FROM runs ORDER BY number")
        )
        runs = [
            {**row._mapping, "created_at": _seconds(row.created_at), "ended_at": _seconds(row.ended_at)} for row in rows
        ]
        begun = connection.execute(sqlalchemy.text("SELECT run_id, created_at FROM attempts WHERE number = 1"))
        first = {row.run_id: _seconds(row.created_at) for row in begun}
        stored = connection.scalar(sqlalchemy.text("SELECT count(*) FROM events"))
        told = connection.execute(
            sqlalchemy.text("SELECT time, training FROM events WHERE training IS NOT NULL AND sequence % :nth = 0"),
            {"nth": max(1, stored // _LAG_EVENTS)},
        )
        lag = [
            _seconds(row.time) - trainer_pb2.TrainingEvent.FromString(row.training).time.ToNanoseconds() / 1e9
            for row in told
        ]
    engine.dispose()
    return runs, first, lag, stored


def _seconds(value: Any) -> Any:
    """Convert a time from the database to seconds since 1970; None stays None."""
    if value is None:
        return None
    found = datetime.fromisoformat(value) if isinstance(value, str) else value  # SQLite stores text in UTC
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
