"""Every part of the system killed while trainings are in every phase, and outages of store and database.

Real processes: PostgreSQL, MinIO, orchestrators with the sparsifier and trainer that they start, a gateway, and five
trainings of a tiny U-Net, each held in its phase at the moment of the kill: one is queued, one loads its data, one has
done its first step, one has half of a checkpoint in the store, and one half of its model. Then all go on, and what was
killed is started again.

Whatever was killed: every run ends SUCCEEDED, with the attempts that the table promises, a model equal bit for bit to
that of an undisturbed run, and the same objects in the store; clients that watched all the time got every event once;
nothing is left over.

`make test` plays a part of it, `make test-crash` the whole.
"""

import os
import time
from contextlib import contextmanager

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.crash_system import PHASES, CrashSystem, Spectators, gaps, kill
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse_proto.v1 import common_pb2, dataset_pb2, sparsifier_pb2

WHOLE = os.environ.get("CRASH_MATRIX") == "whole"

ATTEMPTS = {
    # killed:         queued, starting, first step, checkpoint, finishing
    "orchestrator":   (1, 1, 1, 1, 1),
    "leader":         (1, 1, 1, 1, 1),
    "standby":        (1, 1, 1, 1, 1),
    "sparsifier":     (1, 1, 1, 1, 1),
    "trainer server": (1, 2, 2, 2, 2),
    "training child": (1, 2, 2, 2, 2),
    "MinIO":          (1, 1, 1, 1, 1),
    "PostgreSQL":     (1, 1, 1, 1, 1),
    "gateway":        (1, 1, 1, 1, 1),
}  # fmt: skip
"""Attempts of the run in each phase, by what is killed. "leader" has a standby, which takes over."""
SAMPLE = ("orchestrator", "trainer server", "MinIO", "PostgreSQL")
PAIR = ("leader", "standby")

COMPRESSION = float(os.environ.get("CRASH_COMPRESSION", "10"))
"""Outages are shorter by this factor, and so are the orchestrator's limits that they are measured against."""
OUTAGES = [(away, seconds) for away in ("store", "database") for seconds in (5, 60, 600)]
SAMPLE_OUTAGES = [("store", 60)]
"""Seconds before compression."""


class Systems:
    """One system for all tests that need it; another one after a test that failed."""

    def __init__(self, factory):
        self._factory = factory
        self._systems = {}

    @contextmanager
    def get(self, *, standby):
        if standby not in self._systems:
            folder = self._factory.mktemp("pair" if standby else "alone")
            limits = {"CELLSPARSE_START_SECONDS": f"{max(20.0, 120 / COMPRESSION):.0f}"}
            self._systems[standby] = CrashSystem(folder, standby=standby, **limits)
            self._systems[standby].__enter__()
        try:
            yield self._systems[standby]
        except BaseException:
            self._systems.pop(standby).__exit__()
            raise

    def close(self):
        while self._systems:
            self._systems.popitem()[1].__exit__()


@pytest.fixture(scope="module")
def systems(tmp_path_factory):
    made = Systems(tmp_path_factory)
    yield made
    made.close()


@contextmanager
def orchestrator(system, runs):
    system.leader.kill()
    yield
    system.lead(system.start(system.leader.home.name))


@contextmanager
def leader(system, runs):
    gone, heir = system.leader, system.standby
    gone.kill()
    yield
    until(lambda: leads(heir))
    system.lead(heir)
    system.standby = system.start(gone.home.name)
    assert not leads(system.standby)


@contextmanager
def standby(system, runs):
    system.standby.kill()
    yield
    system.standby = system.start(system.standby.home.name)
    assert not leads(system.standby)


@contextmanager
def sparsifier(system, runs):
    pid = system.leader.healthy("sparsifier").pid
    kill(pid)
    yield
    system.leader.healthy("sparsifier", but_not=pid)
    settings = sparsifier_pb2.SparsifySettings(
        mode=sparsifier_pb2.SELECTION_MODE_MINMAX, k=1, background=sparsifier_pb2.BACKGROUND_RULE_RING
    )
    request = dataset_pb2.CreateSparseDatasetRequest(dataset_id=system.dataset_id, settings=settings)
    assert list(system.leader.datasets.CreateSparseDataset(request, timeout=PATIENCE))[-1].dataset.items == 3


@contextmanager
def trainer_server(system, runs):
    pid = system.leader.healthy("unet").pid
    kill(pid)
    yield
    system.leader.healthy("unet", but_not=pid)


@contextmanager
def training_child(system, runs):
    for pid in system.children(runs):
        kill(pid)
    yield


@contextmanager
def minio(system, runs):
    system.minio.kill()
    yield
    system.minio.start()


@contextmanager
def postgresql(system, runs):
    system.kill_postgres()
    yield
    system.postgres.start()


@contextmanager
def gateway(system, runs):
    kill(system.gateway.pid)
    yield
    system.start_gateway()


KILLS = {
    "orchestrator": orchestrator,
    "leader": leader,
    "standby": standby,
    "sparsifier": sparsifier,
    "trainer server": trainer_server,
    "training child": training_child,
    "MinIO": minio,
    "PostgreSQL": postgresql,
    "gateway": gateway,
}


def leads(one):
    request = health_pb2.HealthCheckRequest(service="cellsparse.v1.OrchestratorService")
    answer = health_pb2_grpc.HealthStub(one.channel).Check(request, timeout=PATIENCE)
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def check_nothing_lost(system, runs, attempts, seen):
    """All runs have ended as if nothing had happened."""
    ended = {phase: system.run(run_id) for phase, run_id in runs.items()}
    assert {phase: (run.state, run.attempts) for phase, run in ended.items()} == {
        phase: (common_pb2.RUN_STATE_SUCCEEDED, number) for phase, number in zip(PHASES, attempts, strict=True)
    }, ended
    for phase, run_id in runs.items():
        assert system.objects(run_id) == system.undisturbed, phase
        events = list(system.leader.watch(run_id))
        assert gaps([event.sequence for event in events]) == [], phase
        for number in range(1, ended[phase].attempts + 1):
            own = [event.training for event in events if event.attempt == number and event.HasField("training")]
            assert gaps([event.sequence for event in own]) == [], (phase, number)
        for client in ("program", "page"):
            assert seen[phase, client] == [event.sequence for event in events], (phase, client)
    until(lambda: not system.leftovers(runs))


@pytest.mark.parametrize("killed", ATTEMPTS if WHOLE else SAMPLE)
def test_a_kill_in_any_phase_loses_nothing(killed, systems):
    with systems.get(standby=killed in PAIR) as system:
        runs = system.begin()
        spectators = Spectators(system, runs)
        with KILLS[killed](system, runs):
            system.release(runs)
        seen = spectators.join()
        check_nothing_lost(system, runs, ATTEMPTS[killed], seen)


@pytest.mark.parametrize(("away", "seconds"), OUTAGES if WHOLE else SAMPLE_OUTAGES)
def test_an_outage_in_any_phase_loses_nothing(away, seconds, systems):
    with systems.get(standby=False) as system:
        runs = system.begin()
        spectators = Spectators(system, runs)
        with KILLS["MinIO" if away == "store" else "PostgreSQL"](system, runs):
            system.release(runs)
            time.sleep(seconds / COMPRESSION)
        seen = spectators.join()
        check_nothing_lost(system, runs, (1,) * len(PHASES), seen)
