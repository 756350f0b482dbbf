"""One of several orchestrators leads: the lease in both databases, and real processes with homes of their own."""

import os
import random
import signal
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace

import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, refused, state_names, until

from cellsparse_common.errors import Unavailable
from cellsparse_orchestrator.clock import new_id, now
from cellsparse_orchestrator.db.holder import this_process
from cellsparse_orchestrator.db.lease import LOOKS, LeaseLost
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2

SUCCEEDED = common_pb2.RUN_STATE_SUCCEEDED
SERVICE = "cellsparse.v1.OrchestratorService"
SLOW = {"learning_rate": 0.9, "patience": 0}  # the fake backend sleeps 0.05 s in every step


def row(text="d"):
    return DatasetRow(id=new_id("ds"), name=text, created_at=now(), parent_id="", summary="{}")


def opened(url, host):
    """An orchestrator's database, as if it were on a machine of its own."""
    database = Database(url)
    database._holder = database._watch._here = replace(this_process(), host=host)
    return database


def write(database):
    with database.write() as session:
        session.add(row())


def test_one_leads_and_the_other_takes_over_what_is_free_or_dead(database_url):
    first, second = opened(database_url, "a"), opened(database_url, "b")
    assert first.try_lead()
    assert first.try_lead()
    assert (first.fence, second.fence) == (1, 0)
    for _ in range(3 * LOOKS):
        first.renew_lease()
        assert not second.try_lead()
    write(first)
    first.give_back_lease()
    assert second.try_lead()
    assert second.fence == 2
    for refused_now in (lambda: write(first), first.renew_lease, first.confirm_lease):
        with pytest.raises(LeaseLost, match="another one has taken over"):
            refused_now()
    write(second)
    second.confirm_lease()
    first.close()  # gives nothing back that is not its own
    second.renew_lease()
    third = opened(database_url, "c")
    assert [third.try_lead() for _ in range(LOOKS + 1)] == [False] * LOOKS + [True]
    with pytest.raises(LeaseLost):
        write(second)
    for database in (second, third):
        database.close()


def test_a_dead_process_of_this_machine_is_not_waited_for(database_url):
    gone = opened(database_url, this_process().host)
    gone._holder = replace(this_process(), started=1.0)  # its id is another process's now
    assert gone.try_lead()
    here = Database(database_url)
    assert here.try_lead()
    with pytest.raises(LeaseLost):
        write(gone)
    for database in (gone, here):
        database.close()


def test_a_takeover_waits_for_the_write_that_is_going_on(database_url):
    first, second = opened(database_url, "a"), opened(database_url, "b")
    assert first.try_lead()
    for _ in range(LOOKS):
        assert not second.try_lead()
    order, led = [], threading.Thread(target=lambda: (second.try_lead(), order.append("taken")))
    with first.write() as session:
        session.add(row())
        session.flush()
        led.start()
        led.join(0.5)
        order.append("written")
    led.join(PATIENCE)
    assert order == ["written", "taken"]
    assert second.fence == 2
    with second.read() as session:
        assert session.query(DatasetRow).count() == 1
    for database in (first, second):
        database.close()


@pytest.mark.parametrize("seed", range(5))
def test_in_any_order_only_the_newest_holder_writes(tmp_path, seed):
    """Signs of life, looks, pauses and writes of three orchestrators in random order."""
    chance, url = random.Random(seed), f"sqlite:///{tmp_path / 'a.db'}"
    made = [opened(url, name) for name in "abc"]
    alive, written = made[0], []
    assert alive.try_lead()
    for _ in range(200):
        one = chance.choice(made)
        if chance.random() < 0.05:
            alive = chance.choice(made)  # all others are paused now
        if one is not alive and chance.random() < 0.7:
            continue
        try:
            chance.choice([one.try_lead, one.renew_lease, lambda one=one: write(one)])()
            newest = max(each.fence for each in made)
            with one.read() as session:
                count = session.query(DatasetRow).count()
            if count > len(written):
                assert one.fence in (newest, 0), "an earlier holder has written"
                written.append(one.fence)
        except LeaseLost:
            assert one.fence < max(each.fence for each in made)
            one.close()
            made[made.index(one)] = again = opened(url, f"{seed}-{len(written)}")
            alive = again if one is alive else alive
    assert [fence for fence in written if fence] == sorted(fence for fence in written if fence)
    for database in made:
        database.close()


class Pair:
    """Homes of two orchestrators on one SQLite file and one store."""

    def __init__(self, folder):
        self.folder = folder
        self.shared = {
            "CELLSPARSE_DATABASE_URL": f"sqlite:///{folder / 'shared.db'}",
            "CELLSPARSE_STORE_URL": (folder / "store").as_uri(),
            "CELLSPARSE_LEASE_SECONDS": "2",
        }

    def start(self, name):
        return Orchestrator(self.folder / name, **self.shared)


@pytest.fixture
def pair(tmp_path):
    yield Pair(tmp_path)
    for process in psutil.process_iter(["environ"]):  # trainers of orchestrators that were killed
        if (process.info["environ"] or {}).get("CELLSPARSE_HOME", "").startswith(f"{tmp_path}/"):
            process.kill()


def health(orchestrator, service=""):
    stub = health_pb2_grpc.HealthStub(orchestrator.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def pause(orchestrator, database):
    """Stop an orchestrator between two writes: a stopped process that holds SQLite's lock is waited for, by design."""
    for _ in range(100):
        os.kill(orchestrator.pid, signal.SIGSTOP)
        try:
            with closing(sqlite3.connect(database, timeout=0.1, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                return
        except sqlite3.OperationalError:
            os.kill(orchestrator.pid, signal.SIGCONT)
            time.sleep(0.05)
    raise AssertionError("the orchestrator holds the lock of the database all the time")


def leads(orchestrator):
    return health(orchestrator, SERVICE) == "SERVING"


def trained(orchestrator, run_id):
    """Watch a run to its end; return its states and the sequence numbers of its newest attempt's training events."""
    events = list(orchestrator.watch(run_id))
    newest = max(event.attempt for event in events)
    numbers = [each.training.sequence for each in events if each.attempt == newest and each.HasField("training")]
    return state_names(events), numbers


def test_a_standby_refuses_calls_and_takes_over_a_training_of_a_killed_holder(pair):
    with pair.start("a") as first, pair.start("b") as second:
        assert (health(first), health(second)) == ("SERVING", "SERVING")
        assert leads(first)
        assert not leads(second)
        for call, request in (
            (second.runs.GetStatus, orchestrator_pb2.GetStatusRequest()),
            (second.runs.WatchRun, orchestrator_pb2.WatchRunRequest(run_id="run-1")),
        ):
            error = refused(call, request)
            assert isinstance(error, Unavailable)
            assert "stands by" in error.message
        first.healthy("unet")
        dataset = first.upload().id
        run = first.train(dataset, steps=60, **SLOW)
        queued = first.train(dataset, steps=2)
        until(lambda: first.run(run.id).progress.step >= 5)
        first.kill()
        until(lambda: leads(second))
        states, numbers = trained(second, run.id)
        assert states == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
        assert second.run(run.id).attempts == 1, "it was trained twice"
        assert numbers == list(range(1, len(numbers) + 1)), "an event is missing or doubled"
        assert trained(second, queued.id)[0] == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
        assert second.run(queued.id).attempts == 1


def test_a_queued_run_is_trained_once_by_two_orchestrators_and_an_orderly_end_is_not_waited_for(pair):
    with pair.start("a") as first, pair.start("b") as second:
        first.healthy("unet")
        run = first.train(first.upload().id, steps=3)
        assert trained(first, run.id)[0][-1] == "SUCCEEDED"
        os.kill(first.pid, signal.SIGTERM)
        first.wait(PATIENCE)
        until(lambda: leads(second))
        assert second.run(run.id).attempts == 1
        # The first one's home is started again, and stands by now.
        with pair.start("a") as again:
            assert not leads(again)
            again.kill()
        assert leads(second)


def test_a_paused_holder_that_lost_its_lease_writes_nothing_and_ends(pair):
    with pair.start("a") as first, pair.start("b") as second:
        first.healthy("unet")
        run = first.train(first.upload().id, steps=80, **SLOW)
        until(lambda: first.run(run.id).progress.step >= 5)
        pause(first, pair.folder / "shared.db")
        try:
            until(lambda: leads(second))
            step = second.run(run.id).progress.step
            # It listens to the training that goes on, or has done so to its end.
            until(lambda: (seen := second.run(run.id)).progress.step > step or seen.state == SUCCEEDED)
        finally:
            os.kill(first.pid, signal.SIGCONT)
        first.wait(PATIENCE)
        assert "has taken over the database" in first.log.read_text()
        states, numbers = trained(second, run.id)
        assert states[-1] == "SUCCEEDED"
        assert second.run(run.id).attempts <= 2  # the trainer of the one that ended was ended with it
        assert numbers == list(range(1, len(numbers) + 1))
