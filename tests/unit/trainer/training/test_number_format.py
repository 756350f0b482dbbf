"""The number format of a run that leaves it open: chosen once, then taken by every attempt and every process."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.cellsparse_fake.config import resolve
from support.limits import PATIENCE

from cellsparse_common.errors import InvalidArgument, StorageError
from cellsparse_common.storage import FolderStore, keys
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.distributed.heartbeat import Coordinator, Worker
from cellsparse_trainer.training.checkpoints import LATEST, Checkpoints
from cellsparse_trainer.training.number_format import settle

RUN = "run-1"


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


@pytest.fixture
def attempt(store, tmp_path):
    checkpoints = Checkpoints(store, RUN, tmp_path / "checkpoints")

    def attempt(asked="AUTO", *, capable, device="cpu", peers=None):
        plan = resolve(trainer_pb2.TrainingSettings(precision=f"PRECISION_{asked}"), 1).plan
        return settle(plan, device, store, checkpoints, RUN, capable=capable, peers=peers)

    attempt.checkpoints = checkpoints
    return attempt


@pytest.mark.parametrize(
    ("device", "capable", "chosen", "sentence"),
    [
        ("cpu", True, "bfloat16", "bfloat16, which this CPU computes in."),
        ("cuda", True, "bfloat16", "bfloat16, which this GPU computes in."),
        (
            "cpu",
            False,
            "float32",
            "float32, this CPU does not compute in bfloat16, or not well enough for this backend.",
        ),
        ("cpu", None, "float32", "float32, this backend trains in no other."),
    ],
)
def test_the_first_attempt_chooses_by_hardware_and_the_next_ones_keep_it(attempt, device, capable, chosen, sentence):
    first = attempt(capable=capable, device=device)
    assert (first.plan.precision, first.sentence) == (chosen, f"Number format: {sentence}")
    again = attempt(capable=capable, device=device)
    assert (again.plan.precision, again.sentence) == (chosen, f"Number format: {chosen}, as the run began.")


def test_a_run_in_float32_stays_in_it_on_better_hardware(attempt):
    attempt(capable=False)
    assert attempt(capable=True).plan.precision == "float32"


def test_a_run_in_bfloat16_goes_on_in_float32_where_there_is_none_and_says_so(attempt):
    attempt(capable=True)
    moved = attempt(capable=False)
    assert moved.plan.precision == "float32"
    assert "not well enough for this backend. The run began in bfloat16" in moved.sentence
    assert attempt(capable=True).plan.precision == "bfloat16"


def test_a_run_that_an_earlier_version_began_stays_in_float32(attempt):
    attempt.checkpoints.write(10, None, {LATEST}, lambda folder: (folder / "state").write_text("weights"))
    attempt.checkpoints.wait()
    kept = attempt(capable=True)
    assert (kept.plan.precision, "an earlier version" in kept.sentence) == ("float32", True)


def test_what_is_asked_for_is_obeyed(attempt, monkeypatch, store):
    assert attempt("FLOAT32", capable=True).plan.precision == "float32"
    assert attempt("BFLOAT16", capable=True).sentence == "Number format: bfloat16, as the settings say."
    with pytest.raises(InvalidArgument, match="this CPU does not compute in it"):
        attempt("BFLOAT16", capable=None)
    monkeypatch.setenv("CELLSPARSE_PRECISION", "float32")
    assert attempt(capable=True).sentence == "Number format: float32, as the service's settings say."


def test_a_damaged_choice_is_named(attempt, store):
    store.put(keys.report_file(RUN, "number-format"), b"float8")
    with pytest.raises(StorageError, match="number format kept for run run-1 is damaged: 'float8'"):
        attempt(capable=True)


@pytest.mark.parametrize(
    ("leader", "others", "chosen"),
    [(True, (True, True), "bfloat16"), (True, (True, False), "float32"), (False, (True, True), "float32")],
)
def test_all_processes_compute_in_one_format(attempt, leader, others, chosen):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    lost = []
    coordinator = Coordinator("127.0.0.1", port, world=3, token=RUN, lost=lost.append)
    workers = [Worker("127.0.0.1", port, rank=rank, token=RUN, lost=lost.append, seconds=PATIENCE) for rank in (1, 2)]
    coordinator.gather(PATIENCE)
    with ThreadPoolExecutor(3) as pool:
        asked = zip((leader, *others), (coordinator, *workers), strict=True)
        settled = [pool.submit(attempt, capable=capable, peers=peers) for capable, peers in asked]
        assert [one.result(PATIENCE).plan.precision for one in settled] == [chosen] * 3
    coordinator.end()
    for each in (*workers, coordinator):
        each.close()
    assert lost == []
