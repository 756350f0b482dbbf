"""The kernel's kills for want of memory, and what a killed training process is then said to have died of."""

import itertools

import pytest
from support.cellsparse_fake import BACKEND
from support.server_process import TESTS
from support.tiny_dataset import write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.processes import attempt
from cellsparse_trainer.processes.attempts import Attempts, AttemptSettings
from cellsparse_trainer.processes.memory_kills import memory_kills
from cellsparse_trainer.training.resolution import Resolution


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_containers_own_count_comes_first(tmp_path):
    write(tmp_path / "cgroup", "0::/\n")
    write(tmp_path / "mount/memory.events", "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\n")
    write(tmp_path / "vmstat", "nr_free_pages 12\noom_kill 40\n")
    assert memory_kills(tmp_path / "cgroup", tmp_path / "mount", tmp_path / "vmstat") == 2


def test_a_service_has_a_group_of_its_own(tmp_path):
    write(tmp_path / "cgroup", "0::/system.slice/trainer.service\n")
    write(tmp_path / "mount/system.slice/trainer.service/memory.events", "oom_kill 5\n")
    assert memory_kills(tmp_path / "cgroup", tmp_path / "mount", tmp_path / "vmstat") == 5


def test_older_groups_tell_it_elsewhere(tmp_path):
    write(tmp_path / "cgroup", "4:cpu:/\n3:hugetlb,memory:/docker/ab:c\n")
    write(tmp_path / "mount/memory/docker/ab:c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n")
    assert memory_kills(tmp_path / "cgroup", tmp_path / "mount", tmp_path / "vmstat") == 7


@pytest.mark.parametrize("cgroup", [None, "0::/\n", "nonsense:::\n0::/x\n"])
def test_else_the_machines_count_or_none(tmp_path, cgroup):
    if cgroup is not None:
        write(tmp_path / "cgroup", cgroup)
    where = (tmp_path / "cgroup", tmp_path / "mount", tmp_path / "vmstat")
    assert memory_kills(*where) == 0
    write(tmp_path / "vmstat", "nr_free_pages 12\noom_kill 40\nodd\n")
    assert memory_kills(*where) == 40


@pytest.mark.parametrize(
    ("kills", "reason", "words"),
    [
        ((3, 3), common_pb2.FAILURE_REASON_LOST, "signal 9"),
        ((3, 4), common_pb2.FAILURE_REASON_OUT_OF_MEMORY, "batch 2 and crop 32"),
    ],
)
def test_a_process_killed_by_the_kernel_ran_out_of_memory(tmp_path, monkeypatch, kills, reason, words):
    """The fake backend kills its process in a step (learning rate 0.8)."""
    last = failed(tmp_path, monkeypatch, kills, 0.8)
    assert (last.state, last.reason) == (common_pb2.RUN_STATE_FAILED, reason)
    assert words in last.message


def test_an_allocation_that_fails_outside_of_python_ran_out_of_memory_too(tmp_path, monkeypatch):
    """The fake backend says what C++ says and aborts (learning rate 0.85)."""
    last = failed(tmp_path, monkeypatch, (0, 0), 0.85)
    assert last.reason == common_pb2.FAILURE_REASON_OUT_OF_MEMORY
    assert "batch 2 and crop 32" in last.message


def test_one_of_several_processes_killed_by_the_kernel_ran_out_of_memory(tmp_path, monkeypatch):
    """Whoever notices first: the others say that they lost it, and the launcher ends with a code of its own."""
    kills = itertools.chain([3], itertools.repeat(4))
    last = failed(tmp_path, monkeypatch, kills, 0.8, processes=2)
    assert last.reason == common_pb2.FAILURE_REASON_OUT_OF_MEMORY
    assert "batch 2 and crop 32" in last.message


def failed(tmp_path, monkeypatch, kills, learning_rate, processes=1):
    url = f"file://{tmp_path / 'store'}"
    store = open_store(StoreSettings(store_url=url))
    write_dataset(store)
    monkeypatch.setenv("CELLSPARSE_STORE_URL", url)
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    counts = iter(kills)
    monkeypatch.setattr(attempt, "memory_kills", lambda: next(counts))
    settings = trainer_pb2.TrainingSettings(
        learning_rate=learning_rate, processes_per_node=processes, unet=trainer_pb2.UnetSettings()
    )
    request = trainer_pb2.StartTrainingRequest(run_id="run-1", attempt=1, dataset_id="ds-tiny", settings=settings)
    config, inputs = Resolution(BACKEND.light(), store)(request)
    how = AttemptSettings(package=BACKEND.package, preload=BACKEND.preload, stop_seconds=5.0)
    here = Attempts(how, tmp_path / "work", store)
    assert here.start(request, inputs, config.plan)
    return list(here.log("run-1", 1).follow(0, lambda: True))[-1]
