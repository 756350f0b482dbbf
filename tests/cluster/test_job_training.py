"""The whole system on Kubernetes: a sparse training in Jobs, one of them killed, ends as one that nobody disturbed."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from kubernetes.client import CoreV1Api
from support.cluster import TRAINER_PORT, cluster_fields, cluster_orchestrator, give_rights, left_behind, start_warm
from support.limits import PATIENCE
from support.minio import ACCESS_KEY, SECRET_KEY, running_minio, store_environment
from support.node_agent import NodeAgent
from support.orchestrator import Orchestrator, state_names, until
from support.tiny_dataset import blobs

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.storage import keys, open_store
from cellsparse_orchestrator.launchers.kubernetes.settings import ClusterSettings, TrainerTemplate
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, sparsifier_pb2, trainer_pb2

SETTINGS = trainer_pb2.TrainingSettings(
    unet=trainer_pb2.UnetSettings(base_channels=4),
    steps=30,
    batch_size=1,
    crop_size=32,
    checkpoint_every_steps=2,
    validate_every_steps=5,
    seed=3,
)
KILL_STEP = 7
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SPARSE = sparsifier_pb2.SparsifySettings(
    mode=sparsifier_pb2.SELECTION_MODE_MINMAX,
    k=1,
    background=sparsifier_pb2.BACKGROUND_RULE_RING,
    background_distance=5,
)
IMAGES = {
    "trainer": [sys.executable, "-m", "cellsparse_unet"],
    "sparsifier": [sys.executable, "-m", "cellsparse_sparsifier"],
}


def trained(orchestrator, store, disturb=lambda run, event: None):
    """Upload, sparsify, train, evaluate, predict: the run, its events, the model's card, the report and the labels."""
    dataset = orchestrator.upload()
    asked = dataset_pb2.CreateSparseDatasetRequest(dataset_id=dataset.id, settings=SPARSE)
    sparse = list(orchestrator.datasets.CreateSparseDataset(asked, timeout=PATIENCE))[-1].dataset
    assert sparse.train_cells == 2
    asked = orchestrator_pb2.CreateRunRequest(dataset_id=sparse.id, settings=SETTINGS)
    run = orchestrator.runs.CreateRun(asked, timeout=PATIENCE).run
    events = []
    watch = orchestrator_pb2.WatchRunRequest(run_id=run.id)
    for answer in orchestrator.runs.WatchRun(watch, timeout=4 * PATIENCE):
        events.append(answer.event)
        disturb(run, answer.event)
    asked = trainer_pb2.EvaluateRequest(model_id=run.id, dataset_id=dataset.id)
    report = list(orchestrator.runs.Evaluate(asked, timeout=2 * PATIENCE))[-1].report
    asked = trainer_pb2.PredictRequest(model_id=run.id, image=encode_tiff(blobs(80, seed=9)[0]))
    label = orchestrator.runs.Predict(asked, timeout=2 * PATIENCE).label
    card = json.loads(store.get(keys.model_file(run.id, "model.json")))
    return orchestrator.run(run.id), events, card, report, decode_image(label, max_pixels=2**20).array


@pytest.fixture
def minio(tmp_path):
    (tmp_path / "minio").mkdir()
    with running_minio(tmp_path / "minio") as server:
        server.client().make_bucket("cells")
        yield server


@pytest.fixture
def on_kubernetes(control_plane, admin, namespace, minio, tmp_path):
    """An orchestrator, its store and the nodes; sparsifier and warm trainer run as pods, keys come from a Secret."""
    give_rights(admin, namespace)
    keys_of_store = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    core = CoreV1Api(admin)
    core.create_namespaced_secret(namespace, {"metadata": {"name": "store"}, "stringData": keys_of_store})
    store = minio.settings("s3://cells/lab")
    everywhere = store_environment(store)
    secret = {name: everywhere.pop(name) for name in ("CELLSPARSE_S3_ACCESS_KEY", "CELLSPARSE_S3_SECRET_KEY")}
    trainer = TrainerTemplate(backend="unet", image="trainer", port=TRAINER_PORT)
    sparsifier = TrainerTemplate(backend="sparsifier", image="sparsifier", port=50051, gpu={"count": 0})
    fields = {"environment": everywhere, "credentials_secret": "store", "trainers": [trainer.model_dump(mode="json")]}
    settings = ClusterSettings.model_validate(cluster_fields(namespace, tmp_path, fields))
    nodes = {"node-0": {"nvidia.com/gpu": "1"}}
    with NodeAgent(admin, namespace, tmp_path / "nodes", nodes, IMAGES, environment=ONE_THREAD) as agent:
        warm = start_warm(admin, settings, trainer.model_copy(update={"gpu": sparsifier.gpu}))
        with cluster_orchestrator(
            control_plane,
            namespace,
            tmp_path / "home",
            fields,
            CELLSPARSE_SPARSIFIER=start_warm(admin, settings, sparsifier),
            CELLSPARSE_TRAINERS=f"unet={warm}",
            **everywhere,
            **secret,
        ) as orchestrator:
            yield orchestrator, open_store(store), agent


def trained_locally(home):
    """The same without a cluster and without a disturbance."""
    settings = {"CELLSPARSE_TRAINER_MODULES": "unet=cellsparse_unet", **ONE_THREAD}
    with Orchestrator(home, **settings) as local:
        local.healthy("unet")
        local.healthy("sparsifier")
        return trained(local, open_store(StoreSettings(store_url=local.store.as_uri())))


def test_killed_in_a_job_and_resumed_equals_undisturbed_and_local(on_kubernetes, admin, namespace, tmp_path):
    orchestrator, store, agent = on_kubernetes
    killed = []

    def kill_once(run, event):
        if event.training.step >= KILL_STEP and not killed:
            killed.append(next(pod.name for pod in agent.pods() if pod.name.startswith(run.id)))
            agent.kill(killed[0])

    # Both at once, each on one thread: most of the time goes into starting frameworks.
    with ThreadPoolExecutor(1) as beside:
        locally = beside.submit(trained_locally, tmp_path / "local")
        run, events, card, report, label = trained(orchestrator, store, kill_once)
        undisturbed, _, whole, expected, same = locally.result()
    assert (run.state, run.attempts) == (common_pb2.RUN_STATE_SUCCEEDED, 2), run.message
    names = ["QUEUED", "STARTING", "RUNNING", "RETRYING", "STARTING", "RUNNING", "SUCCEEDED"]
    assert state_names(events) == names
    assert "code 137" in next(event.message for event in events if event.state == common_pb2.RUN_STATE_RETRYING)
    second = [event.training.step for event in events if event.attempt == 2 and event.training.losses]
    assert min(second) > 2  # it went on where the checkpoint was

    assert undisturbed.attempts == 1
    assert card["files"] == whole["files"]  # SHA-256: weights and thresholds, bit by bit
    for name in ("step", "validation", "preprocessing", "settings", "versions"):
        assert card[name] == whole[name], name
    assert report.scores == expected.scores
    assert np.array_equal(label, same)

    kept = {f"pod/{pod.name}" for pod in agent.pods() if pod.name.startswith("warm-")} | {"secret/store"}
    until(lambda: set(left_behind(admin, namespace)) == kept)
