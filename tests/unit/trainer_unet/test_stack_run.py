"""A whole run on stacks in a store: training, the model in the store, a stack in and labels out."""

import io
import threading

import numpy as np

from cellsparse_common import datasets
from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2
from cellsparse_trainer.models.inference import InferenceContext, predict_file
from cellsparse_trainer.processes.job import Job
from cellsparse_trainer.training.reporter import Reporter
from cellsparse_trainer.training.resolution import Resolution
from cellsparse_trainer.training.worker import train
from cellsparse_unet import BACKEND


def balls():
    """Bright balls, flat since planes are twice as far apart as pixels; one is labelled, and what lies around it."""
    zs, ys, xs = np.indices((10, 40, 48))
    dense = np.zeros(zs.shape, np.int32)
    for n, (y, x) in enumerate([(10, 12), (28, 12), (10, 34), (28, 34)]):
        dense[(2 * (zs - 5)) ** 2 + (ys - y) ** 2 + (xs - x) ** 2 < 49] = n + 1
    image = (20 + 150 * (dense > 0) + np.random.default_rng(0).integers(0, 15, dense.shape)).astype(np.uint8)
    label = np.where(dense == 1, 1, -1).astype(np.int32)
    label[:, :19, :22] = np.where(dense[:, :19, :22] == 1, 1, 0)
    return image, label


def test_a_run_on_stacks(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSPARSE_STORE_URL", f"file://{tmp_path / 'store'}")
    image, label = balls()
    store = open_store(StoreSettings())
    manifest = dataset_pb2.DatasetManifest(dataset=dataset_pb2.Dataset(id="ds-balls", name="balls"))
    manifest.items.append(
        datasets.put_item(
            store, name="balls", split=common_pb2.SPLIT_TRAIN, image=image, label=label, spacing=(2.0, 1.0, 1.0)
        )
    )
    datasets.write_manifest(store, manifest)
    settings = trainer_pb2.TrainingSettings(
        steps=3,
        batch_size=1,
        crop_size=32,
        crop_depth=8,
        device=trainer_pb2.DEVICE_CPU,
        unet=trainer_pb2.UnetSettings(base_channels=4),
    )
    request = trainer_pb2.StartTrainingRequest(run_id="run-balls", attempt=1, dataset_id="ds-balls", settings=settings)
    _, inputs = Resolution(BACKEND.light(), store)(request)
    events = io.StringIO()
    job = Job(package=BACKEND.package, request=request, inputs=inputs, folder=tmp_path / "attempt")
    reporter = Reporter(events)
    train(job, reporter, threading.Event())
    assert reporter.state == common_pb2.RUN_STATE_SUCCEEDED, events.getvalue()
    asked = trainer_pb2.PredictRequest(model_id="run-balls", image=encode_tiff(image, stack=True))
    context = InferenceContext(package=BACKEND.package, cache=tmp_path / "cache", device="cpu")
    answer = trainer_pb2.PredictResponse.FromString(predict_file(context, asked.SerializeToString(), 10**6))
    found = decode_image(answer.label, max_pixels=10**6, stacks=True, labels=True)
    assert (found.axes, found.array.shape) == ("ZYX", image.shape)
    assert len(answer.scores) == answer.cells
    assert all(0 <= score <= 1 for score in answer.scores)
