"""Model files of the stock packages, made by them, through the real orchestrator and every backend's real trainer:
imported, used, exported, imported again and trained on."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import torch
from support.limits import PATIENCE
from support.model_imports import import_messages
from support.orchestrator import Orchestrator, snapshot, until
from support.tiny_dataset import blobs

from cellsparse_common.errors import from_rpc_error
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

IMAGE = blobs(size=72, seed=7)[0]
# Fresh networks, biased so that they find something.
STOCK = {
    "cellpose": """
import torch
from cellpose.resnet_torch import CPnet
torch.manual_seed(0)
net = CPnet([2, 32, 64, 128, 256], 3, sz=3, diam_mean=17.0)
net.diam_labels.data.fill_(13.0)
net.save_model("stock")
""",
    "stardist": """
import os, shutil, numpy as np
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tensorflow as tf
from stardist.models import Config2D, StarDist2D
tf.random.set_seed(0)
config = Config2D(n_rays=8, grid=(2, 2), unet_n_depth=1, unet_n_filter_base=4, net_conv_after_unet=8)
model = StarDist2D(config, name="mine", basedir=".")
layer = model.keras_model.get_layer("dist")
kernel, bias = layer.get_weights()
layer.set_weights([kernel, np.full_like(bias, 6.0)])
model.keras_model.save_weights("mine/weights_last.h5")
open("mine/thresholds.json", "w").write('{"prob": 0.3, "nms": 0.35}')
shutil.make_archive("stock", "zip", ".", "mine")
shutil.move("stock.zip", "stock")
""",
    # ELEPHANT is no package: its shapes are compared in test_unet_model.py. It may keep a list of one state dict.
    "unet": """
import torch
from cellsparse_unet.network import UNet, initialise
net = UNet(base_channels=4)
initialise(net, 1)
net.out_conv.bias.data[2] = 1.0
torch.save([net.state_dict()], "stock")
""",
}


@pytest.fixture(scope="module", params=STOCK)
def stack(request, tmp_path_factory):
    """A running orchestrator with one real trainer, a stock file of its backend, and the model made of it."""
    backend, home = request.param, tmp_path_factory.mktemp("home")
    folder = tmp_path_factory.mktemp("stock")
    subprocess.run(
        [sys.executable, "-c", STOCK[backend]], cwd=folder, check=True, timeout=PATIENCE, capture_output=True
    )
    file = (folder / "stock").read_bytes()
    with Orchestrator(home, CELLSPARSE_TRAINER_MODULES=f"{backend}=cellsparse_{backend}") as orchestrator:
        orchestrator.healthy(backend)
        model = send(orchestrator, backend, file)
        yield SimpleNamespace(backend=backend, orchestrator=orchestrator, file=file, model=model)


def send(orchestrator, backend, content, **settings):
    return orchestrator.runs.ImportModel(import_messages(content, backend, **settings), timeout=PATIENCE).model


def predict(stack, model):
    asked = trainer_pb2.PredictRequest(model_id=model.id, image=encode_tiff(IMAGE))
    return decode_image(stack.orchestrator.runs.Predict(asked, timeout=PATIENCE).label, max_pixels=2**20).array


def export(stack, model_id):
    asked = trainer_pb2.ExportRequest(model_id=model_id, format=trainer_pb2.EXPORT_FORMAT_NATIVE)
    return b"".join(answer.chunk for answer in stack.orchestrator.runs.Export(asked, timeout=PATIENCE))


def settings(backend, **fields):
    found = trainer_pb2.TrainingSettings(steps=2, batch_size=2, crop_size=32, device=trainer_pb2.DEVICE_CPU, **fields)
    getattr(found, backend).SetInParent()
    return found


def train(stack, chosen):
    dataset = stack.orchestrator.upload()
    asked = orchestrator_pb2.CreateRunRequest(dataset_id=dataset.id, settings=chosen)
    run = stack.orchestrator.runs.CreateRun(asked, timeout=PATIENCE).run
    until(lambda: stack.orchestrator.run(run.id).HasField("ended_at"), PATIENCE)
    return stack.orchestrator.run(run.id)


def test_a_stock_file_is_a_model_and_comes_out_as_it_went_in(stack):
    label = predict(stack, stack.model)
    assert label.shape == IMAGE.shape
    assert stack.backend == "cellpose" or label.max() > 0
    native = zipfile.ZipFile(io.BytesIO(export(stack, stack.model.id)))
    if stack.backend == "stardist":
        assert json.loads(native.read("stardist/thresholds.json")) == {"prob": 0.3, "nms": 0.35}
        return
    given = torch.load(io.BytesIO(stack.file), weights_only=True)
    given = given[0] if stack.backend == "unet" else given
    name = {"unet": "unet.pt", "cellpose": "cellpose_model"}[stack.backend]
    found = torch.load(io.BytesIO(native.read(name)), weights_only=True)
    assert all(torch.equal(found[key], value) for key, value in given.items())
    record = json.loads(native.read("cellsparse.json"))
    low, high = {"unet": (0, 100), "cellpose": (1, 99)}[stack.backend]
    assert record["preprocessing"] == {
        "channel": None,
        "lower_percentile": low,
        "upper_percentile": high,
        "channels": [],
    }
    if stack.backend == "cellpose":
        assert (record["config"]["config"]["mean_diameter"], record["config"]["fitted"]["diameter"]) == (17.0, 13.0)


def test_training_starts_from_it_and_what_it_exports_is_imported_as_it_was(stack):
    run = train(stack, settings(stack.backend, initial_model=stack.model.id))
    assert run.state == common_pb2.RUN_STATE_SUCCEEDED, run.message
    assert "the start" in run.message
    assert "score" in run.progress.start_validation
    asked = orchestrator_pb2.GetModelRequest(model_id=run.id)
    model = stack.orchestrator.runs.GetModel(asked, timeout=PATIENCE).model
    assert model.initial_model == stack.model.id
    again = send(stack.orchestrator, stack.backend, export(stack, run.id), name="again")
    np.testing.assert_array_equal(predict(stack, again), predict(stack, model))


def test_other_architecture_is_a_sentence(stack):
    chosen = settings(stack.backend, initial_model=stack.model.id)
    if stack.backend == "cellpose":
        pytest.skip("Cellpose has no setting of its network")
    elif stack.backend == "stardist":
        chosen.stardist.n_rays = 16
    else:
        chosen.unet.base_channels = 8
    run = train(stack, chosen)
    assert run.reason == common_pb2.FAILURE_REASON_USER_ERROR
    assert f"but initial_model {stack.model.id} has" in run.message


class Code:
    """Something whose unpickling would run code."""

    def __reduce__(self):
        return os.mkdir, ("/tmp/cellsparse-import-ran-code",)


def bad_files(backend, file):
    """Broken and strange uploads by name."""
    saved = io.BytesIO()
    torch.save({"a": Code()}, saved)
    climbing = io.BytesIO()
    with zipfile.ZipFile(climbing, "w") as archive:
        archive.writestr("../config.json", "{}")
    yield "text", b"hello"
    yield "pickle", pickle.dumps(Code())
    yield "torch with code", saved.getvalue()
    yield "cut", file[: len(file) // 2]
    yield "cut at the end", file[:-20]
    yield "climbing", climbing.getvalue()
    rng = np.random.default_rng(0)
    for number in range(3):
        broken = bytearray(file)
        for place in rng.integers(0, min(len(broken), 2000), 40):
            broken[place] = int(rng.integers(256))
        yield f"broken {number}", bytes(broken)
    if backend == "stardist":
        for name, changed in (("rays", {"n_rays": 9}), ("resnet", {"backbone": "resnet"}), ("grid", {"grid": [2, 4]})):
            yield name, with_config(file, changed)
        return
    state = torch.load(io.BytesIO(file), weights_only=True)
    state = state[0] if backend == "unet" else state
    first = next(name for name in state if name.endswith("weight"))
    yield "missing", torch_file({name: value for name, value in state.items() if name != first})
    yield "strange", torch_file({**state, "more": torch.zeros(2)})
    yield "shape", torch_file({**state, first: torch.zeros(7)})
    yield "nan", torch_file({**state, first: torch.full_like(state[first], float("nan"))})
    yield "sam", torch_file({"W2": torch.zeros(1), "encoder.pos_embed": torch.zeros(1)})


def torch_file(content):
    target = io.BytesIO()
    torch.save(content, target)
    return target.getvalue()


def with_config(file, changed):
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as source, zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("config.json"):
                content = json.dumps({**json.loads(content), **changed}).encode()
            archive.writestr(name, content)
    return target.getvalue()


def differences(before, after):
    """Files and rows that are in one snapshot only, or changed; not the logs of runs, which come after their end."""
    files = (set(one[0].items()) for one in (before, after))
    changed = {file for file in set.symmetric_difference(*files) if "/store/runs/run-" not in file[0]}
    return sorted(map(str, changed | (set(before[1]) ^ set(after[1]))))


def test_bad_files_are_one_sentence_and_leave_nothing(stack):
    before, said = snapshot(stack.orchestrator), {}
    for name, content in bad_files(stack.backend, stack.file):
        try:
            send(stack.orchestrator, stack.backend, content)
        except grpc.RpcError as caught:
            error = from_rpc_error(caught)
        else:
            assert name.startswith("broken"), name  # its bytes may be ones that nobody reads
            before = snapshot(stack.orchestrator)
            continue
        said[name] = error.message
        assert error.status == grpc.StatusCode.INVALID_ARGUMENT, (name, error.message)
        assert "\n" not in error.message
        assert len(error.message) < 500
        assert differences(before, snapshot(stack.orchestrator)) == [], name
    assert stack.backend != "cellpose" or "Cellpose-SAM" in said["sam"]
    assert not Path("/tmp/cellsparse-import-ran-code").exists()
