"""Labels through the command, the SDK and a real orchestrator: what was read is told, and all that is wrong at once."""

import json

import numpy as np
import pytest
import tifffile
from support.orchestrator import Orchestrator

import cellsparse
from cellsparse.cli.app import run
from cellsparse.errors import AlreadyExists, InvalidArgument
from cellsparse.folders import read_folder
from cellsparse_common.imaging.label_formats import FORMATS

CELLS = np.zeros((96, 128), np.int32)
for _number in range(6):
    _y, _x = 20 + 50 * (_number // 3), 20 + 40 * (_number % 3)
    CELLS[_y - 8 : _y + 8, _x - 8 : _x + 8] = _number + 1
IMAGE = np.where(CELLS > 0, 200, 30).astype(np.uint8)
MASK = (CELLS > 0).astype(np.uint8) * 255


@pytest.fixture(scope="module")
def orchestrator(tmp_path_factory):
    addresses = {"CELLSPARSE_TRAINERS": "unet=127.0.0.1:1", "CELLSPARSE_SPARSIFIER": "127.0.0.1:1"}
    with Orchestrator(tmp_path_factory.mktemp("home"), CELLSPARSE_LAUNCHER="static", **addresses) as started:
        yield started


def square(x, y, size, height=None, **properties):
    corners = [[x, y], [x + size, y], [x + size, y + (height or size)], [x, y + (height or size)], [x, y]]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [corners]}, "properties": properties}


def folder(root, **labels):
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for name, label in labels.items():
        tifffile.imwrite(root / "images" / f"{name}.tif", IMAGE)
        if isinstance(label, bytes):
            (root / "masks" / f"{name}.geojson").write_bytes(label)
        else:
            tifffile.imwrite(root / "masks" / f"{name}.tif", label)
    return str(root)


def test_what_was_read_is_told(orchestrator, tmp_path, capsys):
    shapes = [
        square(0, 0, 128, 96, classification={"name": "Region*"}),
        square(11, 15, 18, objectType="detection"),
        square(53, 15, 18, objectType="detection"),
        square(80, 40, 10, classification='{"name": "Background"}'),
    ]
    root = folder(tmp_path, a=CELLS, b=CELLS, c=np.zeros_like(CELLS), d=json.dumps(shapes).encode())
    assert run(["dataset", "import", root, "--json", "--address", orchestrator.address]) == 0
    shown = capsys.readouterr()
    made = json.loads(shown.out)
    assert (made["items"], made["cells"]) == (4, 14)
    found = {item["item"]: item for item in made["report"]["items"]}
    numbers = ("cells", "background_pixels", "unlabelled_pixels", "ignored_shapes")
    assert [int(found["c"][name]) for name in numbers] == [0, 12288, 0, 0]
    assert [int(found["d"][name]) for name in numbers] == [2, 100, 11540, 1]
    assert "d: feature 1 is of class 'Region*'" in shown.err
    with cellsparse.Client(orchestrator.address) as client:
        values, pixels = np.unique(client.dataset_item(made["id"], "d").label, return_counts=True)
    assert dict(zip(values.tolist(), pixels.tolist(), strict=True)) == {-1: 11540, 0: 100, 1: 324, 2: 324}
    assert run(["dataset", "import", root, "--name", "again", "--address", orchestrator.address]) == 0
    assert "11,540 px" in capsys.readouterr().out


def test_all_faults_are_told_at_once(orchestrator, tmp_path, capsys):
    unsigned = np.where(CELLS == 1, 1, 65535).astype(np.uint16)
    root = folder(tmp_path, a=MASK, b=CELLS, c=MASK // 255 + 1, d=CELLS[1:], e=unsigned)
    assert run(["dataset", "import", root, "--address", orchestrator.address]) == 2
    error = capsys.readouterr().err
    assert "4 faults in this upload, of which nothing is kept." in error
    assert all(f"label of item '{name}'" in error for name in "acde")
    assert error.count("--label-kind binary") == 3
    reports = []
    items = [
        ("good", "train", IMAGE, CELLS),
        ("missing", "train", IMAGE, tmp_path / "none.tif"),
        ("mask", "val", IMAGE, MASK),
        ("unknown", "validate", IMAGE, CELLS),
    ]
    with cellsparse.Client(orchestrator.address) as client:
        before = len(list(client.datasets()))
        with pytest.raises(InvalidArgument, match="3 faults") as caught:
            client.create_dataset("faulty", items)
        message = caught.value.message
        assert "none.tif cannot be read" in message
        assert "item 'mask' has one cell, 255, in 6 separate parts" in message
        assert "split is 'validate'" in message
        assert len(list(client.datasets())) == before
        made = client.create_dataset("mask", [items[2]], "binary", on_report=reports.append)
    assert made.cells == reports[0].cells == 6


EXACT = ("tiff", "ome-tiff", "ome-zarr", "ome-zarr-0.4", "seg")


def test_an_exported_dataset_is_imported_as_it_was(orchestrator, tmp_path, capsys):
    sparse = np.where(CELLS == 2, 12, np.where(CELLS == 5, 7, -1))
    sparse[:9, :30] = 0
    two = np.stack([IMAGE.astype(np.uint16) * 9, IMAGE.astype(np.uint16)], axis=-1)
    items = [
        cellsparse.Item(
            name="a.b", split="train", image=two, label=sparse, spacing=(0.5, 0.25), channels=("GFP", "DAPI")
        ),
        cellsparse.Item(name="cell_img", split="val", image=np.dstack([IMAGE] * 3), label=CELLS),
    ]
    with cellsparse.Client(orchestrator.address) as client:
        made = client.create_dataset("round", items)
        before = {item.name: client.dataset_item(made.id, item.name) for item in client.dataset_items(made.id)}
        for format_ in FORMATS:
            out = tmp_path / format_
            options = ["--out", str(out), "--format", format_, "--json", "--address", orchestrator.address]
            assert run(["dataset", "export", made.id, *options]) == 0
            assert [entry["item"] for entry in json.loads(capsys.readouterr().out)["items"]] == ["a.b", "cell_img"]
            pairs = read_folder(out)
            assert not pairs.left_out
            again = client.create_dataset(format_, pairs.items)
            for name, item in before.items():
                found = client.dataset_item(again.id, name)
                numbers = np.unique(item.label[item.label > 0])
                anew = np.where(item.label > 0, np.searchsorted(numbers, item.label) + 1, item.label)
                np.testing.assert_array_equal(found.label, item.label if format_ in EXACT else anew, err_msg=format_)
                np.testing.assert_array_equal(found.image, item.image)
                assert found.image.dtype == item.image.dtype
                assert (found.split, found.channels, found.spacing) == (item.split, item.channels, item.spacing)
        with pytest.raises(AlreadyExists, match=r"a\.b\.tif is there already"):
            client.export_dataset(made.id, tmp_path / "tiff")
        assert [each.name for each in client.export_dataset(made.id, tmp_path / "val", splits=["val"])] == ["cell_img"]
        with pytest.raises(InvalidArgument, match="has no item in test"):
            client.export_dataset(made.id, tmp_path / "none", splits=["test"])
        assert not (tmp_path / "none").exists()


def test_stacks_are_exported_where_they_can_be_read_again(orchestrator, tmp_path):
    label = np.stack([np.where(n + 1 == CELLS, n + 1, -1) for n in range(3)]).astype(np.int32)
    image = np.stack([np.stack([IMAGE, 255 - IMAGE], axis=-1)] * 3)
    item = cellsparse.Item(
        name="s", split="train", image=image, label=label, axes="ZYXC", spacing=(2, 0.5, 0.5), channels=("x", "y")
    )
    with cellsparse.Client(orchestrator.address) as client:
        made = client.create_dataset("stacks", [item])
        with pytest.raises(InvalidArgument, match=r"Item 's' is a stack.*ask for tiff"):
            client.export_dataset(made.id, tmp_path / "coco", format="coco")
        for format_ in ("ome-tiff", "geojson", "roi"):
            client.export_dataset(made.id, tmp_path / format_, format=format_)
            again = client.create_dataset("again", read_folder(tmp_path / format_).items)
            found = client.dataset_item(again.id, "s")
            np.testing.assert_array_equal(found.label, label)
            np.testing.assert_array_equal(found.image, image)
            assert (found.spacing, found.channels) == ((2, 0.5, 0.5), ("x", "y"))
