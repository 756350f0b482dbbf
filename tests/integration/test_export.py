"""Exports of every backend's real trainer, opened by the stock tools in processes of their own."""

import hashlib
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tifffile
from support.limits import PATIENCE
from support.server_process import ServerProcess
from support.tiny_dataset import blobs, write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import from_rpc_error
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

# Hardly trained: thresholds that let nearly everything through make sure that there is something to compare.
SETTINGS = {  # no stock tool refines outlines
    "cellpose": trainer_pb2.TrainingSettings(
        cellpose=trainer_pb2.CellposeSettings(
            cellprob_threshold=-6, flow_threshold=0, min_size=0, refine_outlines=False
        )
    ),
    "stardist": trainer_pb2.TrainingSettings(
        steps=150,
        # Stock StarDist averages neither rays nor mirror images, and leaves out two grid points at the image's edge.
        stardist=trainer_pb2.StardistSettings(
            n_rays=8,
            unet_depth=1,
            unet_filters=16,
            dist_rate=10,
            average_rays=False,
            edge_margin=2,
            refine_outlines=False,
            test_flips=False,
        ),
    ),
    "unet": trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(centre_threshold=0.05)),
}
ALLOWED = {
    "cellpose": ["native", "torchscript", "onnx", "bioimageio"],
    "stardist": ["native", "saved_model", "bioimageio"],
    "unet": ["native", "torchscript", "onnx", "bioimageio"],
}
IMAGE = blobs(size=72, seed=7)[0]


@pytest.fixture(scope="module", params=SETTINGS)
def trained(request, tmp_path_factory):
    """A running trainer with a model, and what it predicts."""
    backend, store, work = request.param, tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("work")
    write_dataset(open_store(StoreSettings(store_url=f"file://{store}")))
    with ServerProcess(["-m", f"cellsparse_{backend}"], store, work) as server, open_channel(server.address) as channel:
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        # In float32, as the stock tools.
        settings = trainer_pb2.TrainingSettings(
            steps=4, batch_size=2, crop_size=32, learning_rate=0.003, precision=trainer_pb2.PRECISION_FLOAT32
        )
        settings.MergeFrom(SETTINGS[backend])
        asked = trainer_pb2.StartTrainingRequest(run_id="run-x", attempt=1, dataset_id="ds-tiny", settings=settings)
        stub.StartTraining(asked, timeout=PATIENCE)
        events = list(stub.WatchTraining(trainer_pb2.WatchTrainingRequest(run_id="run-x", attempt=1), timeout=PATIENCE))
        assert events[-1].event.state == common_pb2.RUN_STATE_SUCCEEDED, events[-1].event.message
        asked = trainer_pb2.PredictRequest(model_id="run-x", image=encode_tiff(IMAGE))
        label = decode_image(stub.Predict(asked, timeout=PATIENCE).label, max_pixels=2**20).array
        yield SimpleNamespace(backend=backend, stub=stub, label=label, work=work, folder=store / "runs/run-x/model")


def export(trained, name, folder):
    """Export into a folder and return the file, unpacked if it is a zip."""
    number = trainer_pb2.ExportFormat.Value(f"EXPORT_FORMAT_{name.upper()}")
    request = trainer_pb2.ExportRequest(model_id="run-x", format=number)
    first, *rest = trained.stub.Export(request, timeout=PATIENCE)
    content = b"".join(message.chunk for message in rest)
    assert (len(content), hashlib.sha256(content).hexdigest()) == (first.header.size, first.header.sha256)
    assert list((trained.work / "work/exports").iterdir()) == []
    path = folder / first.header.file_name
    path.write_bytes(content)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    return path


def run_stock(folder, code):
    """Run code in a process that has the stock tools but nothing of ours, and return the array it leaves."""
    tifffile.imwrite(folder / "image.tif", IMAGE)
    blocked = "import sys; sys.modules.update(dict.fromkeys(['cellsparse_trainer', 'cellsparse_common']))\n"
    source = blocked + "import numpy as np, tifffile\nimage = tifffile.imread('image.tif')\n" + code
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "result.npy")


def snippet(folder):
    """The Python code in an export's README.md."""
    lines = (folder / "README.md").read_text().splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    ") or not line)


def test_the_stock_tool_opens_native_and_predicts_the_same(trained, tmp_path):
    export(trained, "native", tmp_path)
    assert trained.label.max() > 0, "the model finds nothing: the comparison would say nothing"
    if trained.backend == "cellpose":
        masks = run_stock(tmp_path, snippet(tmp_path) + "\nnp.save('result.npy', masks)")
    elif trained.backend == "stardist":
        # Keras 2, which stock StarDist needs, is chosen by the environment.
        code = "import os; os.environ['TF_USE_LEGACY_KERAS'] = '1'\n" + snippet(tmp_path)
        masks = run_stock(tmp_path, code + "\nnp.save('result.npy', labels)")
    else:
        pytest.skip("ELEPHANT is no package: its keys and shapes are compared in test_unet_model.py and below")
    assert masks.shape == trained.label.shape
    assert masks.max() == trained.label.max()
    assert np.mean(masks == trained.label) > 0.99


def test_the_unets_state_dict_has_elephants_shapes(trained, tmp_path):
    if trained.backend != "unet":
        pytest.skip("only the U-Net is ELEPHANT's")
    export(trained, "native", tmp_path)
    import torch

    state = torch.load(tmp_path / "unet.pt", weights_only=True)
    assert state["encoder.0.0.weight"].shape == (16, 1, 3, 3)
    assert state["base.3.weight"].shape == (256, 256, 3, 3)
    assert state["decoder.0.0.weight"].shape == (128, 384, 3, 3)
    assert state["out_conv.weight"].shape == (3, 16, 1, 1)


def test_native_is_the_same_every_time(trained, tmp_path):
    (tmp_path / "again").mkdir()
    first = export(trained, "native", tmp_path)
    assert first.read_bytes() == export(trained, "native", tmp_path / "again").read_bytes()


def test_every_format_of_the_backend_arrives(trained, tmp_path):
    """What is in the files is compared in the backends' unit tests."""
    expected = {
        "saved_model": {"saved_model.pb", "variables"},
        "torchscript": {"run-x.pt"},
        "onnx": {"run-x.onnx"},
        "bioimageio": {"rdf.yaml", "README.md", "test_input.npy", "test_output.npy"},
    }
    for name in ALLOWED[trained.backend][1:]:
        (tmp_path / name).mkdir()
        export(trained, name, tmp_path / name)
        assert {path.name for path in (tmp_path / name).iterdir()} >= expected[name]


def test_other_formats_are_refused(trained, tmp_path):
    for name in ("saved_model", "torchscript", "onnx", "bioimageio"):
        if name not in ALLOWED[trained.backend]:
            with pytest.raises(grpc.RpcError) as caught:
                export(trained, name, tmp_path)
            error = from_rpc_error(caught.value)
            assert error.status == grpc.StatusCode.INVALID_ARGUMENT
            assert error.message.endswith(f"model: {', '.join(ALLOWED[trained.backend])}.")
