"""A drill: train models, back up, destroy everything, restore; all models predict as before, bit by bit."""

import shutil

import pytest
from support.limits import LONG_PATIENCE
from support.minio import running_minio
from support.orchestrator import Orchestrator, until
from support.tiny_dataset import blobs

from cellsparse.cli.app import run
from cellsparse.client import Client
from cellsparse_common.datasets import put_blob, write_manifest
from cellsparse_common.storage import open_store
from cellsparse_orchestrator.backup.backup import Backup
from cellsparse_orchestrator.backup.restore import restore
from cellsparse_orchestrator.catalogue.datasets import Datasets
from cellsparse_orchestrator.clock import now, timestamp
from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import common_pb2, dataset_pb2

MODULES = {"CELLSPARSE_TRAINER_MODULES": "unet=cellsparse_unet"}


@pytest.fixture
def minio(tmp_path):
    (tmp_path / "minio").mkdir()
    with running_minio(tmp_path / "minio") as server:
        yield server


def predictions(client, image):
    """The label image of each model, as bytes."""
    return {model.id: client.predict(model.id, image).tobytes() for model in client.models()}


def test_after_everything_was_destroyed_all_models_predict_as_before(tmp_path, monkeypatch, capfd):
    home, place = tmp_path / "home", tmp_path / "backup"
    monkeypatch.setenv("CELLSPARSE_HOME", str(home))
    image = blobs(64, seed=1)[0]
    with Orchestrator(home, **MODULES) as orchestrator, Client(orchestrator.address) as client:
        dataset = orchestrator.upload()
        made = [orchestrator.train(dataset.id, steps=2, seed=seed) for seed in (1, 2)]
        until(lambda: all(client.run(each.id).HasField("ended_at") for each in made), LONG_PATIENCE)
        client.delete("run", made[1].id)
        expected = predictions(client, image)
        assert set(expected) == {each.id for each in made}
        assert run(["admin", "backup", str(place)]) == 0  # while it runs
        again = orchestrator.upload(name="again")
        capfd.readouterr()
        assert run(["admin", "backup", str(place)]) == 0
        assert ", 1 of them new" in capfd.readouterr().out  # a manifest: the blobs are there
        assert run(["admin", "backup", str(place), "--keep", "1"]) == 0
        assert "Removed 2 old snapshots" in capfd.readouterr().out
    assert run(["admin", "restore", str(place)]) == 1  # the home folder is not empty
    shutil.rmtree(home)
    assert run(["admin", "restore", str(place)]) == 0
    with Orchestrator(home, **MODULES) as orchestrator, Client(orchestrator.address) as client:
        orchestrator.healthy("unet")
        assert predictions(client, image) == expected
        assert {each.id for each in client.datasets()} == {dataset.id, again.id}
        client.undelete("run", made[1].id)
        assert client.run(made[1].id).state == common_pb2.RUN_STATE_SUCCEEDED


def test_a_backup_in_a_bucket_of_postgresql_and_a_bucket(tmp_path, minio, postgres):
    for bucket in ("store", "backup", "restored"):
        minio.client().make_bucket(bucket)
    stores = [open_store(minio.settings(f"s3://{bucket}")) for bucket in ("store", "backup", "restored")]
    databases = [Database(postgres.create_database()) for _ in range(2)]
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    (store, backup, restored), (ours, new) = stores, databases
    sha256 = put_blob(store, b"pixels")
    for number in range(3):
        dataset = dataset_pb2.Dataset(id=f"ds-{number}", name="tiny", created_at=timestamp(now()))
        item = dataset_pb2.DatasetItem(name="i", image_sha256=sha256, label_sha256=sha256, axes="YX", shape=[2, 2])
        write_manifest(store, dataset_pb2.DatasetManifest(dataset=dataset, items=[item]))
        Datasets(ours).add(dataset)
    assert Backup(store, ours, backup, folders[0]).run().missing == []
    assert Backup(store, ours, backup, folders[1]).run().copied == 0
    restore(restored, new, backup, folders[2], snapshot_id="", lease_seconds=1.0)
    assert list(restored.list("")) == list(store.list(""))
    Datasets(new).add(dataset_pb2.Dataset(id="ds-new", created_at=timestamp(now())))  # PostgreSQL counts on
    assert [each.id for each in Datasets(new).page(common_pb2.PageRequest())[0]] == ["ds-new", "ds-2", "ds-1", "ds-0"]
    for each in databases:
        each.close()
