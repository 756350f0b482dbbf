"""Where the processes of an attempt are."""

import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.processes.attempt import write_request
from cellsparse_trainer.processes.attempts import Attempts, AttemptSettings
from cellsparse_trainer.processes.job import FILE, Inputs, Job
from cellsparse_trainer.processes.launch import (
    LOOPBACK,
    SECRET,
    WORKER_PORTS,
    Launch,
    find_placement,
    here,
    one_per_rank,
    torchrun,
)


def ports(placement):
    return set(range(placement.port, placement.port + WORKER_PORTS + placement.processes))


def test_attempts_that_begin_at_once_get_ports_of_their_own():
    """Before either listens: two runs of one trainer would meet each other's processes."""
    taken = [ports(here(processes)) for processes in (2, 8, 2, 3)]
    assert len(set.union(*taken)) == sum(map(len, taken))


def test_ports_in_use_are_left_out():
    first = here(2)
    with socket.create_server((LOOPBACK, first.port + 2 * len(ports(first)) - 1)):
        found = [ports(here(2)) for _ in range(3)]
        assert not any(first.port + 2 * len(ports(first)) - 1 in each for each in found)


def test_nodes_have_as_long_to_come_as_the_trainer_says():
    """Torchrun's own deadline is ten minutes."""
    placement = replace(here(2), rendezvous_seconds=7.5)
    assert "--rdzv-conf=timeout=8" in torchrun(Path("job.json"), placement)


def placed(hosts, node=0, **settings):
    """Where the processes of an attempt are that has a placement."""
    given = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), **settings)
    placement = trainer_pb2.Placement(hosts=hosts, node=node, port=29400)
    return find_placement(trainer_pb2.StartTrainingRequest(run_id="run-1", settings=given, placement=placement))


def test_an_attempt_may_have_fewer_nodes_than_were_asked_for_if_the_settings_say_so():
    assert placed(["a", "b"], node=1, nodes=3, min_nodes=2).world == 2
    both = placed(["a"], nodes=3, min_nodes=1, processes_per_node=2)
    assert (both.hosts, both.world) == (("a",), 2)
    assert placed(["a"], nodes=2, min_nodes=1) is None, "one process is left, which needs no others"


@pytest.mark.parametrize(
    ("hosts", "settings", "allowed"),
    [
        (["a"], {"nodes": 2}, "names 1 hosts, but settings.nodes is 2; allowed: as many"),
        (["a"], {"nodes": 3, "min_nodes": 2}, "names 1 hosts, but settings.nodes is 3; allowed: 2 to 3"),
        (["a", "b", "c"], {"nodes": 2, "min_nodes": 1}, "names 3 hosts, but settings.nodes is 2; allowed: 1 to 2"),
    ],
)
def test_no_attempt_has_more_nodes_than_were_asked_for_or_too_few(hosts, settings, allowed):
    with pytest.raises(InvalidArgument, match=allowed):
        placed(hosts, **settings)


def test_a_node_is_one_of_those_that_are_left():
    with pytest.raises(InvalidArgument, match="node is 1; allowed: 0 to 0"):
        placed(["a"], node=1, nodes=2, min_nodes=1)


def test_processes_know_each_other_by_a_secret_that_is_in_no_file_and_no_argument(tmp_path):
    assert here(2).secret != here(2).secret
    assert len(here(2).secret) == 64
    given = trainer_pb2.Placement(hosts=["a", "b"], node=1, port=29400, secret="ab" * 32)
    settings = trainer_pb2.TrainingSettings(nodes=2, unet=trainer_pb2.UnetSettings())
    credentials = trainer_pb2.StoreCredentials(access_key="who", secret_key="hunter2", session_token="token")
    request = trainer_pb2.StartTrainingRequest(
        run_id="run-1", attempt=1, dataset_id="ds-1", settings=settings, placement=given, credentials=credentials
    )
    placement = find_placement(request)
    assert placement is not None
    assert Launch(placement=placement).environment()[SECRET] == "ab" * 32
    job = Job(package="p", request=request, inputs=Inputs(config="{}", train=[], validation=[]), folder=tmp_path)
    for command in (torchrun(job.write(), placement), one_per_rank(job.write(), placement), [repr(placement)]):
        assert "ab" * 32 not in " ".join(command)
    write_request(job)
    for path in tmp_path.iterdir():
        assert not any(hidden in path.read_text() for hidden in ("ab" * 32, "hunter2", "token"))
    assert Job.read(tmp_path / FILE).request.placement.node == 1
    assert request.credentials.secret_key, "the request itself is changed"


@pytest.mark.parametrize(
    ("printed", "sentence"),
    [
        ("DistStoreError: Timed out after 8 seconds waiting for clients. 1/2 clients joined.", "2 nodes were there"),
        ("ImportError: no such thing", "One of the 2 training processes ended"),
    ],
)
def test_the_message_says_why_torchrun_ended(tmp_path, monkeypatch, printed, sentence):
    store = open_store(StoreSettings(store_url=f"file://{tmp_path / 'store'}"))

    def command(job, placement):
        return [sys.executable, "-c", f"import sys; sys.exit({printed!r})"]

    how = AttemptSettings(
        package="none", preload="none", stop_seconds=5.0, node_command=command, rendezvous_seconds=8.0
    )
    here = Attempts(how, tmp_path / "work", store)
    settings = trainer_pb2.TrainingSettings(nodes=2, unet=trainer_pb2.UnetSettings())
    placement = trainer_pb2.Placement(hosts=["127.0.0.1", "127.0.0.2"], node=0, port=29400)
    here.start(
        trainer_pb2.StartTrainingRequest(
            run_id="run-1", attempt=1, dataset_id="ds-1", settings=settings, placement=placement
        ),
        Inputs(config="{}", train=[], validation=[]),
    )
    last = list(here.log("run-1", 1).follow(0, lambda: True))[-1]
    assert last.reason == common_pb2.FAILURE_REASON_LOST
    assert sentence in last.message
