"""The whole system as processes that a test kills, with one training in each phase.

They are PostgreSQL, MinIO, one or two orchestrators with what they start, and a gateway.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from support.gated_unet import gates
from support.gateway import Gateway, read_events
from support.limits import LONG_PATIENCE, PATIENCE
from support.minio import KillableMinio, store_environment
from support.orchestrator import Orchestrator, until
from support.postgres import NoPostgres, Postgres

from cellsparse import runs as sdk
from cellsparse.connection import Connection
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

QUEUED = "queued"
HELD = (gates.STARTING, gates.FIRST_STEP, gates.CHECKPOINT, gates.FINISHING)
PHASES = (QUEUED, *HELD)
SETTINGS = trainer_pb2.TrainingSettings(
    unet=trainer_pb2.UnetSettings(base_channels=4),
    steps=10,
    batch_size=1,
    crop_size=32,
    checkpoint_every_steps=2,
    validate_every_steps=4,
    seed=3,
)
FINAL = (common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_FAILED, common_pb2.RUN_STATE_CANCELLED)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_AGAIN_SECONDS = 0.2


class CrashSystem:
    """`with CrashSystem(folder) as system:` gives one that is whole and has trained one model.

    Its clients find the leading orchestrator in a folder, as those of a cluster find it behind a service.

    Args:
        folder: Where it keeps everything; empty.
        standby: Whether a second orchestrator stands by.
        settings: More settings of the orchestrators.

    Attributes:
        leader: The orchestrator that leads.
        standby: The other one; None: there is none.
        store: The object store, for looking into it.
        gates: Hold trainings.
        undisturbed: The objects of the model that was trained while nothing happened.
    """

    def __init__(self, folder: Path, *, standby: bool = False, **settings: str) -> None:
        self.folder = folder
        self._pair = standby
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self._front = folder / "front"

    def __enter__(self) -> "CrashSystem":
        with contextlib.ExitStack() as stack:
            stack.callback(self._kill_all)
            for name in ("front", "gates"):
                (self.folder / name).mkdir()
            try:
                self.postgres = stack.enter_context(Postgres())
            except NoPostgres as error:
                pytest.skip(f"no PostgreSQL can be started here: {error}")
            self.minio = KillableMinio(self.folder / "minio")
            self.minio.start()
            self.minio.server.client().make_bucket("crash")
            stack.callback(self.minio.kill)
            store = self.minio.server.settings("s3://crash")
            self.store = open_store(store)
            self.database_url = self.postgres.create_database()
            self.gates = gates.Gates(self.folder / "gates")
            self._settings = {
                "CELLSPARSE_DATABASE_URL": self.database_url,
                "CELLSPARSE_TRAINER_MODULES": "unet=support.gated_unet",
                "CELLSPARSE_SLOTS": str(len(HELD)),
                "CELLSPARSE_LEASE_SECONDS": "2",
                "CELLSPARSE_STORE_SECONDS": "0.2",
                "CELLSPARSE_WARM_SECONDS": "600",
                gates.FOLDER: str(self.gates.folder),
                **ONE_THREAD,
                **store_environment(store),
                **self._settings,
            }
            self.leader = self.start("a")
            self.standby = self.start("b") if self._pair else None
            self.lead(self.leader)
            with socket.create_server(("127.0.0.1", 0)) as free:
                self._port = str(free.getsockname()[1])
            self.start_gateway()
            self.leader.healthy("unet")
            self.leader.healthy("sparsifier")
            self.dataset_id = self.leader.upload().id
            whole = self._train("")
            until(lambda: self.run(whole).state in FINAL, LONG_PATIENCE)
            assert self.run(whole).state == common_pb2.RUN_STATE_SUCCEEDED, self.run(whole)
            self.undisturbed = self.objects(whole)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def _kill_all(self) -> None:
        """End all processes of all orchestrators' homes: those of killed ones have no owner."""
        homes = {str(self.folder / name) for name in ("a", "b", "front")}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("CELLSPARSE_HOME") in homes:
                    process.kill()

    def start(self, name: str) -> Orchestrator:
        """Start the orchestrator of a home folder."""
        return Orchestrator(self.folder / name, **self._settings).__enter__()

    def lead(self, orchestrator: Orchestrator) -> None:
        """Let clients find this orchestrator from now on."""
        self.leader = orchestrator
        new = self._front / ".new"
        new.write_text(json.dumps({"address": orchestrator.address, "pid": orchestrator.pid}))
        new.replace(self._front / "orchestrator.json")

    def start_gateway(self) -> None:
        """Start the gateway, always on the same port."""
        self.gateway = Gateway(self._front, CELLSPARSE_GATEWAY_PORT=self._port).__enter__()

    def run(self, run_id: str) -> orchestrator_pb2.Run:
        """Return a run."""
        return self.leader.run(run_id)

    def _train(self, phase: str) -> str:
        request = orchestrator_pb2.CreateRunRequest(dataset_id=self.dataset_id, settings=SETTINGS)
        run_id = self.leader.runs.CreateRun(request, timeout=PATIENCE).run.id
        self.gates.hold(run_id, phase)
        return run_id

    def begin(self) -> dict[str, str]:
        """Start a training for each phase; return the runs by phase once each is held there, the last one queued."""
        runs = {phase: self._train(phase) for phase in HELD}
        for run_id in runs.values():
            until(lambda run_id=run_id: self.gates.held(run_id) or self.run(run_id).state in FINAL)
            assert self.run(run_id).state not in FINAL, self.run(run_id)
        runs[QUEUED] = self._train("")
        assert self.run(runs[QUEUED]).state == common_pb2.RUN_STATE_QUEUED
        return runs

    def children(self, runs: dict[str, str]) -> list[int]:
        """Return the ids of the training processes that are held."""
        return [self.gates.held(runs[phase]) for phase in HELD]

    def release(self, runs: dict[str, str]) -> None:
        """Let all trainings go on."""
        for run_id in runs.values():
            self.gates.hold(run_id, "")

    def objects(self, run_id: str) -> dict[str, str]:
        """Return what a run has in the store, with the SHA-256 of the model's files; logs of attempts are left out."""
        prefix = keys.run_prefix(run_id)
        names = [key.removeprefix(prefix) for key in self.store.list(prefix)]
        card = json.loads(self.store.get(keys.model_file(run_id, "model.json")))
        hashes = {f"model/{name}": digest for name, digest in card["files"].items()}
        return {name: hashes.get(name, "") for name in names if not name.startswith("attempts/")}

    def leftovers(self, runs: dict[str, str]) -> list[str]:
        """Return what should not be there any more once all runs have ended."""
        found = [key for prefix in (keys.UPLOADS, keys.TRANSFERS, "probes/") for key in self.store.list(prefix)]
        found += [f"process {pid}" for pid in self.children(runs) if psutil.pid_exists(pid)]
        name = self.database_url.rpartition("/")[2]
        open_attempts = "SELECT run_id, number, state FROM attempts WHERE ended_at IS NULL"
        return found + [f"attempt {row}" for row in self.postgres.execute(open_attempts, name)]

    def kill_postgres(self) -> None:
        """End PostgreSQL with all its processes at once."""
        first = psutil.Process(int((self.postgres.data / "postmaster.pid").read_text().split()[0]))
        processes = [first, *first.children(recursive=True)]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        assert not psutil.wait_procs(processes, PATIENCE)[1]


class Spectators:
    """Two clients for every run, who watch it from now to its end whatever is killed: a Python program and a page.

    Args:
        system: What they watch.
        runs: The runs by phase.
    """

    def __init__(self, system: CrashSystem, runs: dict[str, str]) -> None:
        self._system = system
        self._home = system.folder / "front"
        self._seen: dict[tuple[str, str], list[int]] = {}
        self._faults: list[str] = []
        self._threads = []
        for phase, run_id in runs.items():
            for client, watch in (("program", self._program), ("page", self._page)):
                seen = self._seen[phase, client] = []
                thread = threading.Thread(target=self._watch, args=(watch, run_id, seen), daemon=True)
                thread.start()
                self._threads.append(thread)

    def join(self) -> dict[tuple[str, str], list[int]]:
        """Wait for the end of all runs; return the sequence numbers of the events that each client got."""
        end = time.monotonic() + LONG_PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        assert not self._faults, self._faults
        assert not any(thread.is_alive() for thread in self._threads), "a client did not see the end of its run"
        return self._seen

    def _watch(self, watch, run_id: str, seen: list[int]) -> None:
        try:
            watch(run_id, seen)
        except Exception as error:  # noqa: BLE001 - the test says what it was
            self._faults.append(f"{watch.__name__} of {run_id}: {type(error).__name__}: {error}")

    def _program(self, run_id: str, seen: list[int]) -> None:
        with contextlib.closing(Connection(None, PATIENCE, home=self._home)) as connection:
            seen.extend(event.sequence for event in sdk.watch(connection, run_id, patience=LONG_PATIENCE))

    def _page(self, run_id: str, seen: list[int]) -> None:
        end = time.monotonic() + LONG_PATIENCE
        with httpx.Client(base_url=self._system.gateway.api) as client:
            while time.monotonic() < end:
                last = {"Last-Event-ID": str(seen[-1])} if seen else {}
                try:
                    for event in read_events(client, f"/runs/{run_id}/events", headers=last):
                        if event.name == "end":
                            return
                        seen.append(int(event.id))
                except httpx.HTTPStatusError as error:
                    if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                        raise
                except httpx.TransportError:
                    pass
                time.sleep(_AGAIN_SECONDS)


def kill(pid: int) -> None:
    """End a process at once, and wait until it is gone."""
    process = psutil.Process(pid)
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(psutil.NoSuchProcess):
        until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def gaps(sequence: list[int]) -> list[int]:
    """Return the numbers that are missing or doubled in what should be 1, 2, 3 and so on."""
    whole = range(1, max(sequence, default=0) + 1)
    return sorted(set(whole) - set(sequence)) + [number for number in whole if sequence.count(number) > 1]
