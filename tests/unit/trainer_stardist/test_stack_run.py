"""A whole run on a stack in a store: its pixel size shapes the rays, and stock StarDist3D opens the model as stored."""

import io
import threading

import numpy as np

from cellsparse_common import datasets
from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2
from cellsparse_stardist import BACKEND
from cellsparse_stardist.framework import StarDist3D
from cellsparse_trainer.models.inference import InferenceContext, predict_file
from cellsparse_trainer.models.store import fetch_model
from cellsparse_trainer.processes.job import Job
from cellsparse_trainer.training.reporter import Reporter
from cellsparse_trainer.training.resolution import Resolution
from cellsparse_trainer.training.worker import train


def test_a_run_on_a_stack(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSPARSE_STORE_URL", f"file://{tmp_path / 'store'}")
    store = open_store(StoreSettings())
    zs, ys, xs = np.indices((10, 40, 48))
    label = np.where((2 * (zs - 5)) ** 2 + (ys - 12) ** 2 + (xs - 12) ** 2 < 49, 1, -1).astype(np.int32)
    label[:, :3] = 0
    image = (20 + 150 * (label > 0) + np.random.default_rng(0).integers(0, 15, label.shape)).astype(np.uint8)
    item = datasets.put_item(
        store, name="ball", split=common_pb2.SPLIT_TRAIN, image=image, label=label, spacing=(1.0, 0.5, 0.5)
    )
    manifest = dataset_pb2.DatasetManifest(dataset=dataset_pb2.Dataset(id="ds-ball", name="ball"), items=[item])
    datasets.write_manifest(store, manifest)
    settings = trainer_pb2.TrainingSettings(
        steps=3,
        batch_size=1,
        crop_size=32,
        crop_depth=8,
        device=trainer_pb2.DEVICE_CPU,
        stardist=trainer_pb2.StardistSettings(n_rays=8, unet_depth=1, unet_filters=4, features=8),
    )
    request = trainer_pb2.StartTrainingRequest(run_id="run-ball", attempt=1, dataset_id="ds-ball", settings=settings)
    _, inputs = Resolution(BACKEND.light(), store)(request)
    events = io.StringIO()
    reporter = Reporter(events)
    train(
        Job(package=BACKEND.package, request=request, inputs=inputs, folder=tmp_path / "attempt"),
        reporter,
        threading.Event(),
    )
    assert reporter.state == common_pb2.RUN_STATE_SUCCEEDED, events.getvalue()
    folder, card = fetch_model(store, "run-ball", tmp_path / "fetched")
    assert card["axes"] == "ZYX"
    stock = StarDist3D(None, name="stardist", basedir=str(folder))
    assert tuple(stock.config.anisotropy) == (2.0, 1.0, 1.0)
    assert tuple(stock.config.grid) == (1, 2, 2)
    asked = trainer_pb2.PredictRequest(model_id="run-ball", image=encode_tiff(image, stack=True))
    context = InferenceContext(package=BACKEND.package, cache=tmp_path / "cache", device="cpu")
    answer = trainer_pb2.PredictResponse.FromString(predict_file(context, asked.SerializeToString(), 10**6))
    found = decode_image(answer.label, max_pixels=10**6, stacks=True, labels=True)
    assert (found.axes, found.array.shape) == ("ZYX", image.shape)
    assert len(answer.scores) == answer.cells
    assert all(0 <= score <= 1 for score in answer.scores)
