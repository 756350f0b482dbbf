"""Credentials that open what one attempt needs and nothing else: a real MinIO, and trainers without keys."""

import hashlib
import io
import json
import time
from dataclasses import replace

import psutil
import pytest
from support.minio import REGION, running_minio
from support.orchestrator import Orchestrator, state_names, until
from support.server_process import ServerProcess

from cellsparse_common.config.settings import StoreSettings, load
from cellsparse_common.errors import InvalidArgument, NotFound, StorageError
from cellsparse_common.storage import keys, open_store
from cellsparse_common.storage.s3_credentials import S3Credentials
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_orchestrator.runs.store_credentials import LONGEST_POLICY, CredentialIssuer, policy
from cellsparse_orchestrator.settings import OrchestratorSettings
from cellsparse_proto.v1 import trainer_pb2

BUCKET, PREFIX = "cells", "lab/p"
ATTEMPT = RunAttempt(
    run_id="run-1", number=1, backend="unet", dataset_id="ds-1", settings=trainer_pb2.TrainingSettings()
)
SHA = hashlib.sha256(b"pixels").hexdigest()
SECONDS = 10
"""Lifetime of credentials; a training here takes longer."""


@pytest.fixture(scope="module")
def minio(tmp_path_factory):
    with running_minio(tmp_path_factory.mktemp("minio")) as server:
        server.client().make_bucket(BUCKET)
        yield server


@pytest.fixture(scope="module")
def root(minio):
    """The store with the keys that open everything."""
    store = open_store(minio.settings(f"s3://{BUCKET}/{PREFIX}"))
    for run in ("run-1", "run-2", "run-10"):
        store.put(keys.model_file(run, "weights"), b"weights of " + run.encode())
    for dataset in ("ds-1", "ds-2"):
        store.put(keys.dataset_manifest(dataset), dataset.encode())
    store.put(keys.blob(SHA), b"pixels")
    minio.client().put_object(BUCKET, "elsewhere", io.BytesIO(b"x"), 1)
    return store


def issuer(minio, seconds=3600, prefix=PREFIX):
    values = minio.settings(f"s3://{BUCKET}/{prefix}").model_dump(exclude_unset=True)
    made = load(OrchestratorSettings, **values, sts_endpoint=f"http://{minio.endpoint}", sts_seconds=seconds)
    return CredentialIssuer(made)


def opened(minio, folder, attempt=ATTEMPT, seconds=3600):
    """The store as an attempt opens it."""
    found = issuer(minio, seconds).issue(attempt)
    expires = found.expire_time.ToNanoseconds() / 1e9
    file = folder / "credentials.json"
    S3Credentials(
        access_key=found.access_key,
        secret_key=found.secret_key,
        session_token=found.session_token,
        expire_time=expires,
    ).write(file)
    assert file.stat().st_mode & 0o777 == 0o600
    return open_store(
        load(
            StoreSettings,
            store_url=f"s3://{BUCKET}/{PREFIX}",
            s3_endpoint=minio.endpoint,
            s3_secure=False,
            s3_region=REGION,
            s3_credentials_file=file,
        )
    )


def test_they_open_the_run_and_reading_of_its_dataset(minio, root, tmp_path):
    store = opened(minio, tmp_path)
    store.check()
    assert store.get(keys.dataset_manifest("ds-1")) == b"ds-1"
    assert store.get(keys.blob(SHA)) == b"pixels"
    key = keys.checkpoint("run-1", 3, "big")
    store.put(key, bytes(11 * 2**20))  # in parts
    assert store.size(key) == 11 * 2**20
    assert key in list(store.list(keys.run_prefix("run-1")))
    store.delete(key)
    assert not store.exists(key)
    with pytest.raises(NotFound):
        store.get(keys.checkpoint_pointer("run-1", "LATEST"))


def test_they_open_nothing_else(minio, root, tmp_path):
    store = opened(minio, tmp_path)
    foreign = [
        keys.model_file("run-2", "weights"),
        keys.model_file("run-10", "weights"),
        keys.dataset_manifest("ds-2"),
        keys.installation(),
    ]
    for key in foreign:
        for call in (store.get, store.size, store.delete, lambda key: store.put(key, b"mine")):
            with pytest.raises(StorageError, match="denied"):
                call(key)
    for key in (keys.dataset_manifest("ds-1"), keys.blob(SHA), keys.blob("cd" * 32)):
        with pytest.raises(StorageError, match="denied"):
            store.put(key, b"mine")
        with pytest.raises(StorageError, match="denied"):
            store.delete(key)
    for prefix in ("", keys.BLOBS, keys.RUNS, keys.DATASETS, keys.run_prefix("run-2"), keys.dataset_prefix("ds-1")):
        with pytest.raises(StorageError, match="denied"):
            list(store.list(prefix))
    assert root.get(keys.model_file("run-2", "weights")) == b"weights of run-2"
    assert root.get(keys.dataset_manifest("ds-1")) == b"ds-1"


def test_the_model_that_a_training_starts_from_can_be_read(minio, root, tmp_path):
    settings = trainer_pb2.TrainingSettings(initial_model="run-2")
    store = opened(minio, tmp_path, replace(ATTEMPT, settings=settings))
    key = keys.model_file("run-2", "weights")
    assert store.get(key) == b"weights of run-2"
    with pytest.raises(StorageError, match="denied"):
        store.put(key, b"mine")


def test_they_end_for_the_server_and_before_that_for_the_client(minio, root, tmp_path):
    store = opened(minio, tmp_path, seconds=SECONDS)
    key = keys.model_file("run-1", "weights")
    assert store.get(key)
    file = tmp_path / "credentials.json"
    found = json.loads(file.read_text())
    time.sleep(max(0.0, found["expire_time"] - time.time()) + 1.5)
    with pytest.raises(StorageError, match="have ended, and new ones have not come"):
        store.get(key)
    S3Credentials(**found | {"expire_time": time.time() + 60}).write(file)  # says who holds on to them
    with pytest.raises(StorageError, match="denied"):
        store.get(key)
    opened(minio, tmp_path)  # replaces the file
    assert store.get(key)


def test_a_store_without_sts_is_told_in_a_sentence(minio):
    made = load(
        OrchestratorSettings,
        store_url="s3://b",
        s3_access_key="a",
        s3_secret_key="hunter2",
        s3_endpoint="127.0.0.1:1",
        sts_endpoint="http://127.0.0.1:1",
    )
    with pytest.raises(
        StorageError, match=r"http://127\.0\.0\.1:1 gives no credentials for attempt 1 of run run-1: "
    ) as e:
        CredentialIssuer(made).issue(ATTEMPT)
    assert "hunter2" not in e.value.message


def test_a_policy_has_room_for_all_ids(minio):
    for prefix in ("", "a" * 60):
        text = policy(ATTEMPT, BUCKET, prefix, until=time.time())
        assert len(text) < LONGEST_POLICY
        assert "//" not in text
        issuer(minio, prefix=prefix)
    with pytest.raises(InvalidArgument, match="has 400 characters"):
        issuer(minio, prefix="a" * 400)


def test_sts_needs_a_store_with_keys():
    for values in ({}, {"store_url": "s3://b"}):
        with pytest.raises(InvalidArgument, match="CELLSPARSE_STS_ENDPOINT needs a store in S3 with keys"):
            load(OrchestratorSettings, sts_endpoint="http://s", **values)


def test_a_training_outlasts_its_credentials_and_resumes_without_keys(minio, tmp_path):
    """The trainer has no keys at all. Its process is killed after the first credentials have ended."""
    url = f"s3://{BUCKET}/whole"
    place = {
        "CELLSPARSE_STORE_URL": url,
        "CELLSPARSE_S3_ENDPOINT": minio.endpoint,
        "CELLSPARSE_S3_SECURE": "false",
        "CELLSPARSE_S3_REGION": REGION,
    }
    own = minio.settings(url)
    secret = own.s3_secret_key.get_secret_value()
    owned = {"CELLSPARSE_S3_ACCESS_KEY": own.s3_access_key, "CELLSPARSE_S3_SECRET_KEY": secret}
    (tmp_path / "trainer").mkdir()
    with (
        ServerProcess(["-m", "support.cellsparse_fake"], tmp_path, tmp_path / "trainer", **place) as trainer,
        Orchestrator(
            tmp_path / "home",
            CELLSPARSE_LAUNCHER="static",
            CELLSPARSE_TRAINERS=f"unet={trainer.address}",
            CELLSPARSE_STS_ENDPOINT=f"http://{minio.endpoint}",
            CELLSPARSE_STS_SECONDS=str(SECONDS),
            **place,
            **owned,
        ) as orchestrator,
    ):
        orchestrator.healthy("unet")
        run_id = orchestrator.train(
            orchestrator.upload().id, learning_rate=0.9, steps=600, checkpoint_every_steps=20, validate_every_steps=100
        ).id
        folder = tmp_path / "trainer" / "work" / "attempts" / run_id / "1"
        file = folder / "store-credentials.json"
        first = json.loads(until(lambda: file.exists() and file.read_text()))
        process = until(lambda: next(iter(psutil.Process(trainer.pid).children(recursive=True)), None))
        given = process.environ()
        until(lambda: time.time() > first["expire_time"] + 2)
        renewed = json.loads(file.read_text())
        assert renewed["expire_time"] > time.time()
        store = open_store(own)
        pointer = keys.checkpoint_pointer(run_id, "LATEST")
        before = until(lambda: store.exists(pointer) and store.get(pointer))
        until(lambda: store.get(pointer) != before)  # a checkpoint that the renewed credentials have written
        process.kill()
        assert state_names(orchestrator.watch(run_id))[-1] == "SUCCEEDED"
        found = orchestrator.run(run_id)
        assert found.attempts == 2
        assert not file.exists()
        assert secret not in given.values()
        assert "CELLSPARSE_S3_SECRET_KEY" not in given
        kept = b"".join(path.read_bytes() for path in folder.parent.rglob("*") if path.is_file())
        for hidden in (first["secret_key"], renewed["secret_key"], renewed["session_token"], secret):
            assert hidden.encode() not in kept
        assert store.exists(keys.attempt_events(run_id, 1))
        until(lambda: store.exists(keys.attempt_log(run_id, 2)))  # it is stored after the last event
    for log in (orchestrator.log.read_text(), trainer.log.read_text()):
        assert not any(hidden in log for hidden in (secret, renewed["secret_key"], renewed["session_token"]))
