"""The steps of a training of given length: measured once per run, then taken by every attempt and every process."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from support.cellsparse_fake import backend
from support.cellsparse_fake.config import resolve
from support.tiny_dataset import blobs, sparse

from cellsparse_common.errors import StorageError
from cellsparse_common.storage import FolderStore, keys
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.heartbeat import Coordinator, Worker
from cellsparse_trainer.training import timing
from cellsparse_trainer.training.timing import Choice, Trial, choose

SETTINGS = trainer_pb2.TrainingSettings(minutes=2.0, learning_rate=0.9)  # the fake sleeps 0.05 s in every step then


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


def samples(count):
    image, label = blobs()
    return [
        Sample(name=f"item{number}", image=(image / 255).astype(np.float32), label=sparse(label))
        for number in range(count)
    ]


class Counting:
    """Builds the fake's trainings and counts the items of each."""

    def __init__(self, plan):
        self.plan = plan
        self.items = []

    def __call__(self, items):
        self.items.append(len(items))
        return backend.create(resolve(SETTINGS, 1), items, "cpu")


def trial(plan, count=20):
    items = samples(count)
    return Trial(create=Counting(plan), workers=0, train=items, validation=items, began=time.monotonic())


def test_steps_are_measured_once_and_kept_with_the_run(store):
    plan = resolve(SETTINGS, 1).plan
    first = trial(plan)
    chosen = choose(plan, SETTINGS, store, "run-1", first)
    assert first.create.items == [1, 1, timing.PROBE_ITEMS]
    assert 20 < chosen.plan.steps <= 2400
    assert chosen.plan.budget.startswith(f"{chosen.plan.steps} steps")
    assert 0 < chosen.finishing <= 18
    again = trial(plan)
    assert choose(plan, SETTINGS, store, "run-1", again) == chosen
    assert again.create.items == []


def test_other_minutes_are_measured_again(store):
    plan = resolve(SETTINGS, 1).plan
    before = choose(plan, SETTINGS, store, "run-1", trial(plan))
    longer = replace(plan, minutes=4.0)
    after = choose(longer, SETTINGS, store, "run-1", trial(plan))
    assert after.plan.minutes == 4
    assert after.plan.steps * after.plan.batch_size > before.plan.steps * before.plan.batch_size


@pytest.mark.parametrize("settings", [{}, {"minutes": 2.0, "steps": 9}])
def test_without_minutes_or_with_steps_nothing_is_measured(store, settings):
    given = trainer_pb2.TrainingSettings(**settings)
    plan = resolve(given, 1).plan
    asked = trial(plan)
    assert choose(plan, given, store, "run-1", asked) == Choice(plan=plan)
    assert asked.create.items == []
    assert list(store.list("runs/")) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"steps": 0}'])
def test_a_damaged_choice_is_said(store, text):
    store.put(keys.report_file("run-1", "budget.json"), text.encode())
    plan = resolve(SETTINGS, 1).plan
    with pytest.raises(StorageError, match="The steps chosen for run run-1 are damaged"):
        choose(plan, SETTINGS, store, "run-1", trial(plan))


@pytest.mark.parametrize("kept", [False, True])
def test_all_processes_take_what_rank_0_chooses(store, kept):
    plan = resolve(SETTINGS, 1).plan
    if kept:
        choose(plan, SETTINGS, store, "run-1", trial(plan))
    lost = []
    coordinator = Coordinator("127.0.0.1", 0, world=2, token="t", lost=lost.append)
    port = coordinator._listener.getsockname()[1]
    found = {}

    def follow():
        worker = Worker("127.0.0.1", port, rank=1, token="t", lost=lost.append, seconds=60)
        own = trial(plan)
        found["follower"] = choose(plan, SETTINGS, store, "run-1", own, worker)
        found["measured"] = own.create.items
        found["first"] = worker.begin()
        worker.next_step()
        worker.close()

    thread = threading.Thread(target=follow)
    thread.start()
    coordinator.gather(60)
    chosen = choose(plan, SETTINGS, store, "run-1", trial(plan), coordinator)
    coordinator.begin(7)
    coordinator.end()
    thread.join(60)
    coordinator.close()
    assert found["follower"] == chosen
    assert found["measured"] == ([] if kept else [1, 1, timing.PROBE_ITEMS])
    assert found["first"] == 7
    assert lost == []


def test_what_is_kept_says_what_was_done(store):
    plan = resolve(SETTINGS, 1).plan
    chosen = choose(plan, SETTINGS, store, "run-1", trial(plan)).plan
    kept = json.loads(store.get(keys.report_file("run-1", "budget.json")))
    assert (kept["steps"], kept["minutes"], kept["budget"]) == (chosen.steps, 2.0, chosen.budget)
