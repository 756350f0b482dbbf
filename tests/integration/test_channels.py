"""A real trainer on images of three channels: chosen by name, said in the log and on the card, held by predictions."""

import json

import grpc
import numpy as np
import pytest
from support.limits import PATIENCE
from support.server_process import ServerProcess
from support.tiny_dataset import blobs, sparse

from cellsparse_common import datasets
from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import keys, open_store
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2, trainer_pb2_grpc

NAMES = ("RFP", "DAPI", "GFP")


def image(seed):
    gray, label = blobs(64, seed=seed)
    noise = np.random.default_rng(seed).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    noise[..., 2] = gray
    return noise, label


def written(store):
    manifest = dataset_pb2.DatasetManifest(dataset=dataset_pb2.Dataset(id="ds-channels", name="channels"))
    for number, split in enumerate([common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_VAL]):
        pixels, label = image(number)
        about = {"name": f"item{number}", "split": split, "channels": NAMES}
        manifest.items.append(datasets.put_item(store, image=pixels, label=sparse(label), **about))
    datasets.write_manifest(store, manifest)


def test_a_run_trains_on_named_channels_and_its_model_keeps_them(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (tmp_path / "work").mkdir()
    store = open_store(StoreSettings(store_url=f"file://{folder}"))
    written(store)
    settings = trainer_pb2.TrainingSettings(
        unet=trainer_pb2.UnetSettings(base_channels=4),
        channels=["gfp", "DAPI"],
        steps=2,
        batch_size=1,
        crop_size=32,
        device=trainer_pb2.DEVICE_CPU,
    )
    asked = trainer_pb2.StartTrainingRequest(run_id="run-1", attempt=1, dataset_id="ds-channels", settings=settings)
    with (
        ServerProcess(["-m", "cellsparse_unet"], folder, tmp_path / "work") as server,
        open_channel(server.address) as channel,
    ):
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        stub.StartTraining(asked, timeout=PATIENCE)
        watched = stub.WatchTraining(trainer_pb2.WatchTrainingRequest(run_id="run-1", attempt=1), timeout=PATIENCE)
        said = [line for answer in watched for line in answer.event.log_lines]
        assert any("The network gets the channels 2 (GFP), 1 (DAPI) of the images." in line for line in said), said
        card = json.loads(store.get(keys.model_file("run-1", "model.json")))
        assert card["preprocessing"]["channels"] == [2, 1]
        assert card["channel_names"] == ["GFP", "DAPI"]
        pixels, _ = image(9)

        def predict(array, **given):
            request = trainer_pb2.PredictRequest(model_id="run-1", image=encode_tiff(array), **given)
            return stub.Predict(request, timeout=PATIENCE)

        assert predict(pixels).label == predict(np.ascontiguousarray(pixels[..., [2, 1]])).label
        assert predict(pixels).label == predict(pixels, channels=["2", "1"]).label
        one = {"ious": [0.5], "split": common_pb2.SPLIT_VAL}

        def evaluate(**given):
            request = trainer_pb2.EvaluateRequest(model_id="run-1", dataset_id="ds-channels", **one, **given)
            return list(stub.Evaluate(request, timeout=PATIENCE))[-1].report

        assert evaluate() == evaluate(channels=["GFP", "dapi"])
        assert evaluate(channels=["0", "1"]).items  # others
        with pytest.raises(grpc.RpcError, match="Item 'item1': channels are DAPI; the model takes 2"):
            evaluate(channels=["DAPI"])
        for array, given, words in [
            (pixels[..., 0], {}, "takes channels 2, 1 of an image; this one has 1"),
            (pixels, {"channels": ["0"]}, "the model takes 2"),
        ]:
            with pytest.raises(grpc.RpcError) as caught:
                predict(array, **given)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert words in caught.value.details()
