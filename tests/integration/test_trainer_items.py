"""Items that cannot be read end a run before its training is made; processes that make batches end with it."""

import json
import os
import signal
import time
import zlib

import numpy as np
import psutil
import pytest
from support.limits import PATIENCE, QUICK
from support.server_process import ServerProcess
from support.tiny_dataset import blobs, sparse

from cellsparse_common import datasets
from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2, trainer_pb2_grpc

PREFETCH = "cellsparse_trainer.data.prefetch"


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def store(store_folder):
    return open_store(StoreSettings(store_url=f"file://{store_folder}"))


@pytest.fixture(scope="module")
def server(store_folder, tmp_path_factory):
    with ServerProcess(["-m", "support.cellsparse_fake"], store_folder, tmp_path_factory.mktemp("work")) as server:
        yield server


@pytest.fixture
def stub(server):
    with open_channel(server.address) as channel:
        yield trainer_pb2_grpc.TrainerServiceStub(channel)


def write(store, dataset_id, change=lambda _: None, channels=1):
    """Three TRAIN items and a VAL item, the last of them spoilt."""
    manifest = dataset_pb2.DatasetManifest(dataset=dataset_pb2.Dataset(id=dataset_id, name="bad"))
    for number, split in enumerate([common_pb2.SPLIT_TRAIN] * 3 + [common_pb2.SPLIT_VAL]):
        image, label = blobs(64, seed=zlib.crc32(dataset_id.encode()) + number)
        label = sparse(label)
        label[-1, : 10 + number] = 0  # no two label images are the same blob
        image = image if channels == 1 else np.repeat(image[..., np.newaxis], channels, axis=2)
        item = datasets.put_item(store, name=f"item{number}", split=split, image=image, label=label)
        manifest.items.append(item)
    change(manifest)
    datasets.write_manifest(store, manifest)


def start(stub, dataset_id, run_id="", **settings):
    asked = trainer_pb2.StartTrainingRequest(
        run_id=run_id or f"run-{dataset_id}",
        attempt=1,
        dataset_id=dataset_id,
        settings=trainer_pb2.TrainingSettings(unet={}, **settings),
    )
    stub.StartTraining(asked, timeout=PATIENCE)
    return trainer_pb2.WatchTrainingRequest(run_id=asked.run_id, attempt=1)


def events(stub, dataset_id, **settings):
    asked = start(stub, dataset_id, **settings)
    return [answer.event for answer in stub.WatchTraining(asked, timeout=PATIENCE)]


def truncated(store):
    def change(manifest):
        key = keys.blob(manifest.items[2].image_sha256)
        store.put(key, store.get(key)[:-100])

    return change


def missing(store):
    return lambda manifest: store.delete(keys.blob(manifest.items[3].label_sha256))


def swapped(store):
    def change(manifest):
        one, other = manifest.items[1], manifest.items[2]
        one.label_sha256, other.label_sha256 = other.label_sha256, one.label_sha256

    return change


def foreign(store):
    def change(manifest):
        image, label = blobs(48)
        other = datasets.put_item(store, name="x", split=common_pb2.SPLIT_TRAIN, image=image, label=sparse(label))
        manifest.items[0].label_sha256 = other.label_sha256

    return change


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (truncated, ["image of item 'item2'", "damaged"]),
        (missing, ["label image of item 'item3'", "missing"]),
        (swapped, ["label image of item 'item1'", "manifest says"]),
        (foreign, ["label image of item 'item0'", "(48, 48)", "(64, 64)"]),
    ],
)
def test_an_item_that_is_not_what_the_manifest_says_fails_the_run_before_it_trains(stub, store, spoil, words):
    name = f"ds-{spoil.__name__}"
    write(store, name, spoil(store))
    found = events(stub, name)
    last = found[-1]
    assert (last.state, last.reason) == (common_pb2.RUN_STATE_FAILED, common_pb2.FAILURE_REASON_STORAGE)
    for text in words:
        assert text in last.message
    assert common_pb2.RUN_STATE_RUNNING not in [event.state for event in found]


def test_a_channel_that_an_item_lacks_is_the_persons_error(stub, store):
    write(store, "ds-channel", channels=2)
    found = events(stub, "ds-channel", channel=3)
    last = found[-1]
    assert (last.state, last.reason) == (common_pb2.RUN_STATE_FAILED, common_pb2.FAILURE_REASON_USER_ERROR)
    assert "item0" in last.message
    assert common_pb2.RUN_STATE_RUNNING not in [event.state for event in found]


def helpers(pid):
    return [one for one in psutil.Process(pid).children(recursive=True) if PREFETCH in one.cmdline()]


def test_processes_make_the_same_batches_and_none_outlives_a_training_that_is_killed(stub, server, store):
    write(store, "ds-good")
    losses = []
    for workers in (0, 2):
        last = events(stub, "ds-good", run_id=f"run-good-{workers}", num_workers=workers)[-1]
        assert last.state == common_pb2.RUN_STATE_SUCCEEDED, last.message
        state = json.loads(store.get(keys.checkpoint(f"run-good-{workers}", 20, "state.json")))
        losses.append(state)
    assert losses[0] == losses[1]
    assert helpers(server.pid) == []
    asked = start(stub, "ds-good", run_id="run-killed", num_workers=2, learning_rate=0.9, steps=2000)
    stream = stub.WatchTraining(asked, timeout=PATIENCE)
    next(answer for answer in stream if answer.event.losses)
    found = helpers(server.pid)
    assert len(found) == 2
    os.kill(found[0].ppid(), signal.SIGKILL)
    assert list(stream)[-1].event.reason == common_pb2.FAILURE_REASON_LOST
    _, left = psutil.wait_procs(found, timeout=QUICK)
    end = time.monotonic() + QUICK
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in left) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
