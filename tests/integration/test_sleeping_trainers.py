"""Trainers that an autoscaler stops: the first call waits until one is there again. The test plays the autoscaler."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import urllib3
from prometheus_client.parser import text_string_to_metric_families
from support.limits import LONG_PATIENCE, PATIENCE
from support.orchestrator import Orchestrator, until
from support.server_process import ServerProcess

from cellsparse.cli.app import run
from cellsparse.errors import Starting
from cellsparse_common.errors import from_rpc_error
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_proto.v1 import trainer_pb2

MANY = 20
HEIGHT = 20
"""Of the first image; the others are one pixel higher each, so that the trainer's log tells them apart."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class System:
    """An orchestrator, and the address of a trainer that runs only now and then."""

    def __init__(self, home):
        self._home = home
        self._port, self._metrics = free_port(), free_port()
        self.predicted = home / "predicted"
        self.orchestrator = Orchestrator(
            home,
            CELLSPARSE_LAUNCHER="static",
            CELLSPARSE_TRAINERS=f"unet=127.0.0.1:{self._port}",
            CELLSPARSE_SCALE_TO_ZERO="unet",
            CELLSPARSE_METRICS_PORT=str(self._metrics),
        )

    @contextmanager
    def trainer(self):
        work = self._home / "trainer"
        work.mkdir(exist_ok=True)
        with ServerProcess(
            ["-m", "support.cellsparse_fake"],
            self.orchestrator.store,
            work,
            CELLSPARSE_PORT=str(self._port),
            CELLSPARSE_FAKE_PREDICTED=str(self.predicted),
        ):
            yield
        until(lambda: self.orchestrator.service("unet").asleep)

    def waiting(self):
        """What the autoscaler looks at."""
        text = urllib3.request("GET", f"http://127.0.0.1:{self._metrics}/metrics", timeout=PATIENCE).data.decode()
        (found,) = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "cellsparse_predictions_waiting" and sample.labels == {"backend": "unet"}
        ]
        return found

    def predict(self, number=0, seconds=LONG_PATIENCE):
        image = encode_tiff(np.zeros((HEIGHT + number, 40), np.uint8))
        request = trainer_pb2.PredictRequest(model_id=self.model_id, image=image)
        return self.orchestrator.runs.Predict.future(request, timeout=seconds)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    made = System(tmp_path_factory.mktemp("home"))
    with made.orchestrator as orchestrator:
        with made.trainer():
            until(lambda: not orchestrator.service("unet").asleep)
            made.model_id = orchestrator.train(orchestrator.upload().id, steps=2).id
            list(orchestrator.watch(made.model_id))
        yield made


def test_a_trainer_that_sleeps_is_no_fault(system, capsys):
    status = system.orchestrator.service("unet")
    assert (status.healthy, status.asleep, status.waking) == (True, True, False)
    assert status.message == "asleep: the first prediction starts one"
    assert run(["status", "--address", system.orchestrator.address]) == 0
    assert "asleep" in capsys.readouterr().out
    assert system.waiting() == 0


def test_a_call_waits_for_the_trainer_and_then_succeeds(system, capsys):
    first = system.predict()
    until(lambda: system.waiting() == 1)
    assert system.orchestrator.service("unet").waking
    run(["status", "--address", system.orchestrator.address])
    assert "waking up" in capsys.readouterr().out
    assert "one is starting" in system.orchestrator.service("unet").message
    with system.trainer():
        assert first.result(LONG_PATIENCE).label
        assert system.waiting() == 0
        # The next call finds it awake.
        assert system.predict().result(LONG_PATIENCE).label
        awake = system.orchestrator.service("unet")
        assert (awake.asleep, awake.waking) == (False, False)


def test_the_command_line_waits_and_says_for_what(system, capfd):
    target = system.predicted.with_name("exported")
    command = ["export", system.model_id, "--format", "native", "--out", str(target)]
    with ThreadPoolExecutor(1) as thread:
        exported = thread.submit(run, [*command, "--address", system.orchestrator.address])
        said = []
        until(
            lambda: (
                "The unet trainers were asleep, and one is starting" in "".join(said)
                or said.append(capfd.readouterr().err)
            )
        )
        with system.trainer():
            assert exported.result(LONG_PATIENCE) == 0
    assert target.exists()


def test_calls_go_on_in_the_order_in_which_they_came(system):
    system.predicted.unlink(missing_ok=True)
    calls = []
    for number in range(MANY):
        calls.append(system.predict(number))
        until(lambda: system.waiting() == len(calls))
    with system.trainer():
        for call in calls:
            call.result(LONG_PATIENCE)
    heights = [int(line) for line in system.predicted.read_text().splitlines()]
    assert heights == [HEIGHT + number for number in range(MANY)]


def test_a_call_whose_time_is_over_is_told_why_and_counts_until_it_comes_back(system):
    late = from_rpc_error(system.predict(seconds=2).exception(PATIENCE))
    assert isinstance(late, Starting)
    assert late.retry_seconds >= 5
    assert "The unet trainers were asleep, and one is starting" in late.message
    assert "number 1 in line; try again in" in late.message
    assert system.waiting() == 1
    with system.trainer():
        until(lambda: system.waiting() == 0)


def test_a_cancelled_call_leaves_nothing(system):
    calls = [system.predict() for _ in range(3)]
    until(lambda: system.waiting() == 3)
    for call in calls:
        call.cancel()
    until(lambda: system.waiting() == 0)
    assert not system.orchestrator.service("unet").waking
