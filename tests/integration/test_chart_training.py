"""The script that `helm test` runs in a pod, run here against a real orchestrator."""

import os
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest
from support.helm import CHART
from support.limits import PATIENCE
from support.orchestrator import Orchestrator

from cellsparse_proto.v1 import common_pb2, orchestrator_pb2


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    with Orchestrator(tmp_path_factory.mktemp("home")) as started:
        yield started


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")}
    return subprocess.run(
        [sys.executable, CHART / "files" / "tiny_training.py", *arguments],
        env={**plain, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_it_trains_a_model_and_tells_how_it_goes(orchestrator):
    done = script(orchestrator.address, "--backend=unet", f"--seconds={PATIENCE:.0f}")
    assert done.returncode == 0, done.stderr
    assert "RUN_STATE_SUCCEEDED" in done.stdout
    (run,) = orchestrator.runs.ListRuns(orchestrator_pb2.ListRunsRequest(), timeout=PATIENCE).runs
    assert (run.name, run.state) == ("helm-test", common_pb2.RUN_STATE_SUCCEEDED)
    assert done.stdout.splitlines()[-1] == f"model {run.id} of unet is there"


def test_an_orchestrator_that_stands_by_at_first_is_asked_again(tmp_path):
    home = tmp_path / "home"
    shared = {
        "CELLSPARSE_DATABASE_URL": f"sqlite:///{home}/cellsparse.db",
        "CELLSPARSE_STORE_URL": f"file://{home}/store",
    }
    with ExitStack() as stack:
        leader = stack.enter_context(Orchestrator(home))
        standby = stack.enter_context(Orchestrator(tmp_path / "other", **shared))
        ender = threading.Timer(2.0, leader.kill)
        ender.start()
        done = script(standby.address, "--backend=unet", f"--seconds={PATIENCE:.0f}")
        ender.join()
    assert done.returncode == 0, done.stderr


def test_a_run_that_does_not_end_well_is_a_failed_test(orchestrator):
    done = script(orchestrator.address, "--backend=cellpose", f"--seconds={PATIENCE:.0f}")
    assert done.returncode == 1
    assert "cellpose" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["{address}", "--backend=resnet"], {}, "There is no backend resnet."),
        (["127.0.0.1:1", "--seconds=2"], {}, "127.0.0.1:1 answers DEADLINE_EXCEEDED"),
        (["{address}"], {"CELLSPARSE_TLS_CA": "/nowhere/ca.crt"}, "/nowhere/ca.crt, cannot be read"),
    ],
)
def test_what_goes_wrong_is_one_sentence(orchestrator, arguments, environment, sentence):
    done = script(*(one.format(address=orchestrator.address) for one in arguments), **environment)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
