"""From the last release to this one and back on one machine, with real networks.

By default with the U-Net alone. UPGRADE_BACKENDS=unet,stardist,cellpose takes the others as well.
"""

import contextlib
import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
from support.limits import LONG_PATIENCE
from support.orchestrator import Orchestrator, until
from support.server_process import TESTS
from support.tiny_dataset import SPLITS, blobs

from cellsparse.client import Client
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

SUCCEEDED, CANCELLED = common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_CANCELLED
SETTINGS = {
    "unet": {"unet": trainer_pb2.UnetSettings(base_channels=4)},
    "cellpose": {"cellpose": trainer_pb2.CellposeSettings()},
    "stardist": {"stardist": trainer_pb2.StardistSettings(unet_filters=8, features=16, n_rays=16)},
}
COMMON = {
    "batch_size": 2,
    "crop_size": 64,
    "seed": 1,
    "checkpoint_every_steps": 5,
    "precision": trainer_pb2.PRECISION_FLOAT32,  # in which both releases compute the same
}
STEPS = {"unet": 40, "cellpose": 8, "stardist": 20}
BACKENDS = os.environ.get("UPGRADE_BACKENDS", "unet").split(",")
MODULES = ",".join(f"{backend}=cellsparse_{backend}" for backend in BACKENDS)
IMAGE = blobs(96, seed=5)[0]


@pytest.fixture
def home(tmp_path):
    yield tmp_path / "home"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("CELLSPARSE_HOME") == str(tmp_path / "home"):
                process.kill()


def started(home, path):
    return Orchestrator(
        home, PYTHONPATH=path, CELLSPARSE_TRAINER_MODULES=MODULES, CELLSPARSE_SLOTS="2", OMP_NUM_THREADS="1"
    )


def train(orchestrator, dataset_id, backend, steps):
    settings = trainer_pb2.TrainingSettings(**SETTINGS[backend], **COMMON, steps=steps)
    request = orchestrator_pb2.CreateRunRequest(dataset_id=dataset_id, settings=settings)
    return orchestrator.runs.CreateRun(request, timeout=LONG_PATIENCE).run.id


def wait(orchestrator, run_id, state=SUCCEEDED):
    found = until(lambda: (run := orchestrator.run(run_id)).HasField("ended_at") and run, LONG_PATIENCE)
    assert found.state == state, found.message


def predictions(orchestrator, models):
    with Client(orchestrator.address, timeout=LONG_PATIENCE) as client:
        return {backend: client.predict(model, IMAGE) for backend, model in models.items()}


def items():
    for number, split in enumerate(SPLITS):
        image, label = blobs(96, seed=number)
        yield f"item{number}", split, encode_tiff(image), encode_labels(label)


def test_models_and_trainings_of_the_last_release_go_on_and_come_back(home, release):
    with started(home, release.path) as old:
        for backend in BACKENDS:
            old.healthy(backend)
        dataset = old.upload(items())
        models = {backend: train(old, dataset.id, backend, STEPS[backend]) for backend in BACKENDS}
        for model in models.values():
            wait(old, model)
        expected = predictions(old, models)
        assert expected["unet"].any(), "it has learned nothing"
        long = train(old, dataset.id, "unet", 100_000)
        reached = until(lambda: old.run(long).progress.checkpoint_step, LONG_PATIENCE)

    with started(home, str(TESTS)) as new:
        for backend in BACKENDS:
            new.healthy(backend)
        for backend, labels in predictions(new, models).items():
            np.testing.assert_array_equal(labels, expected[backend], backend)
        resumed = until(lambda: (run := new.run(long)).attempts == 2 and run.progress.step, LONG_PATIENCE)
        assert resumed >= reached
        new.runs.CancelRun(orchestrator_pb2.CancelRunRequest(run_id=long), timeout=LONG_PATIENCE)
        wait(new, long, CANCELLED)

    done = subprocess.run(
        [sys.executable, "-m", "cellsparse_orchestrator", "rollback", "--to", release.name],
        env={**os.environ, "CELLSPARSE_HOME": str(home)},
        timeout=LONG_PATIENCE,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with started(home, release.path) as old:
        old.healthy("unet")
        assert old.run(long).state == CANCELLED
        np.testing.assert_array_equal(predictions(old, {"unet": models["unet"]})["unet"], expected["unet"])
