"""Stacks from upload to scores through the SDK and real servers: Cellpose on planes, and a backend for volumes."""

import json
from importlib.util import find_spec
from pathlib import Path

import grpc
import numpy as np
import pytest
import tifffile
from support.limits import PATIENCE
from support.orchestrator import Orchestrator

import cellsparse
from cellsparse.cli.app import run
from cellsparse.errors import InvalidArgument, RunFailedError
from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.scoring.matching import match_counts
from cellsparse_proto.v1 import dataset_pb2

REAL = Path(find_spec("stardist").origin).parent / "data" / "images"
CORNER = (slice(8, 22), slice(0, 40), slice(0, 44))
IMAGE, LABEL = (tifffile.imread(REAL / name)[CORNER] for name in ("img3d.tif", "mask3d.tif"))
SPACING = (2.0, 0.5, 0.5)
SMALL = {"steps": 2, "batch_size": 1, "crop_size": 32, "cellpose.channels": (4, 4, 256)}
LENIENT = {"mean_diameter": 10, "min_size": 0, "cellprob_threshold": -6, "flow_threshold": 0}  # two steps teach little


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    modules = {"CELLSPARSE_TRAINER_MODULES": "unet=support.cellsparse_fake,cellpose=cellsparse_cellpose"}
    with (
        Orchestrator(tmp_path_factory.mktemp("home"), **modules) as orchestrator,
        cellsparse.Client(orchestrator.address) as client,
    ):
        for name in ("sparsifier", "unet", "cellpose"):
            orchestrator.healthy(name)
        yield client


@pytest.fixture(scope="module")
def dense(client):
    items = [
        cellsparse.Item(name=name, split=name, image=IMAGE, label=LABEL, spacing=SPACING)
        for name in ("train", "val", "test")
    ]
    return client.create_dataset("nuclei", items)


@pytest.fixture(scope="module")
def sparse(client, dense):
    return client.sparsify(dense.id, k=2, background="ring", distance=3)


@pytest.fixture(scope="module")
def plane_model(client, sparse):
    return client.train(sparse.id, "cellpose", **SMALL, **LENIENT).wait().id


@pytest.fixture(scope="module")
def volume_model(client, sparse):
    return client.train(sparse.id, "unet", crop_depth=2).wait().id


@pytest.fixture(scope="module")
def flat_model(client):
    dataset = client.create_dataset("planes", [("a", "train", IMAGE[5], LABEL[5])])
    return client.train(dataset.id, "unet").wait().id


def test_a_dataset_of_stacks(client, dense):
    (item, *_) = client.dataset_items(dense.id)
    assert (item.axes, tuple(item.shape), tuple(item.spacing)) == ("ZYX", IMAGE.shape, SPACING)
    assert dense.pixels == 3 * IMAGE.size
    arrays = client.dataset_item(dense.id, "train")
    np.testing.assert_array_equal(arrays.image, IMAGE)
    np.testing.assert_array_equal(arrays.label, LABEL)
    assert arrays.spacing == SPACING


def test_a_sparse_copy_keeps_cells_not_planes(client, dense, sparse):
    arrays = client.dataset_item(sparse.id, "train")
    assert arrays.spacing == SPACING
    kept = np.unique(arrays.label[arrays.label > 0])
    assert len(kept) == 4
    np.testing.assert_array_equal(arrays.label > 0, np.isin(LABEL, kept))
    assert (arrays.label == 0).any()
    np.testing.assert_array_equal(client.dataset_item(sparse.id, "test").label, LABEL)


def test_cellpose_trains_on_planes_and_segments_stacks(client, plane_model, dense, tmp_path):
    label = client.predict(plane_model, IMAGE)
    assert label.shape == IMAGE.shape
    assert label.max() > 0
    assert client.predict(plane_model, IMAGE[4]).shape == IMAGE.shape[1:]
    report = client.evaluate(plane_model, dense.id, ious=[0.5])
    (counts,) = match_counts(LABEL.astype(np.int32), label, [0.5])
    assert [item.item for item in report.items] == ["test"]
    assert (report.scores[0].tp, report.scores[0].fp, report.scores[0].fn) == (counts.tp, counts.fp, counts.fn)

    source = tmp_path / "stack.tif"
    source.write_bytes(encode_tiff(IMAGE, stack=True, spacing=SPACING))
    options = ["--out", str(tmp_path / "out"), "--address", client.connection.address]
    assert run(["predict", plane_model, str(source), *options]) == 0
    with tifffile.TiffFile(tmp_path / "out" / "stack.tif") as file:
        assert file.series[0].axes == "ZYX"
        assert file.imagej_metadata["spacing"] == SPACING[0]
        np.testing.assert_array_equal(file.asarray(), label)


def test_a_model_of_volumes(client, volume_model, dense):
    label = client.predict(volume_model, IMAGE)
    assert label.shape == IMAGE.shape
    plain = encode_tiff(IMAGE[0]), encode_tiff(IMAGE, stack=True)
    largest = np.bincount(label.ravel())[1:].max()
    assert client.predict(volume_model, plain[1], min_pixels=int(largest)).max() == 1
    features = json.loads(client.predict(volume_model, IMAGE, format="geojson"))["features"]
    assert {feature["geometry"]["plane"]["z"] for feature in features} <= set(range(len(IMAGE)))
    with pytest.raises(InvalidArgument, match=r"takes stacks \(axes ZYX\); this one has shape \(40, 44\), axes YX"):
        client.predict(volume_model, plain[0])
    assert client.evaluate(volume_model, dense.id, ious=[0.5]).scores[0].fn >= 0


def test_a_model_of_planes_takes_no_stack(client, flat_model, dense, tmp_path):
    with pytest.raises(InvalidArgument, match=r"takes 2D images \(axes YX\); this one has shape \(14, 40, 44\)"):
        client.predict(flat_model, IMAGE)
    thin = tmp_path / "thin.tif"
    tifffile.imwrite(thin, IMAGE[:3], photometric="minisblack", metadata=None)
    with pytest.raises(InvalidArgument, match=r"has 3 layers of 40 x 44 pixels .*ZYX \(--axes ZYX\) for planes"):
        client.predict(flat_model, thin)
    with pytest.raises(InvalidArgument, match=r"Item 'test': Model .* takes 2D images"):
        client.evaluate(flat_model, dense.id)


def test_stacks_and_planes_do_not_mix(client):
    items = [("a", "train", IMAGE, LABEL), ("b", "val", IMAGE[0], LABEL[5])]
    with pytest.raises(InvalidArgument, match="Item 'a' is a stack and item 'b' is 2D"):
        client.create_dataset("mixture", items)


def test_axes_that_nobody_can_tell_are_asked_for(client, tmp_path):
    path = tmp_path / "few.tif"
    tifffile.imwrite(path, IMAGE[:6])
    with pytest.raises(InvalidArgument, match=r"image of item 'a' has 6 channels.*Give the axes"):
        client.create_dataset("few", [("a", "train", path, LABEL[:6])])
    thin = tmp_path / "thin.tif"
    tifffile.imwrite(thin, IMAGE[:4], photometric="minisblack", metadata=None)
    for label in (LABEL[0], LABEL[:4]):
        with pytest.raises(InvalidArgument, match=r"image of item 'a' has 4 layers .*CYX \(--axes CYX\) for channels"):
            client.create_dataset("thin", [("a", "train", thin, label)])
    item = cellsparse.Item(name="a", split="train", image=path, label=LABEL[:6], axes="ZYX")
    assert client.create_dataset("few", [item]).pixels == IMAGE[:6].size
    with pytest.raises(InvalidArgument, match="spacing of 2 numbers; its label image has 3 axes"):
        client.create_dataset(
            "x", [cellsparse.Item(name="a", split="train", image=IMAGE, label=LABEL, spacing=(0.5, 0.5))]
        )


def test_planes_per_crop_are_for_volumes(client, sparse):
    with pytest.raises((InvalidArgument, RunFailedError), match="crop_depth is 4; allowed: not set"):
        client.train(sparse.id, "cellpose", crop_depth=4).wait()


def test_a_label_file_has_the_axes_of_its_image(client):

    def stream():
        request = dataset_pb2.CreateDatasetRequest
        yield request(header=dataset_pb2.DatasetHeader(name="x"))
        yield request(file=dataset_pb2.FileHeader(item="a", split=1, role=2, axes="ZYX"))

    with pytest.raises((InvalidArgument, grpc.RpcError), match="label file of item 'a' is given axes"):
        client.connection.upload("CreateDataset", stream(), timeout=PATIENCE)
