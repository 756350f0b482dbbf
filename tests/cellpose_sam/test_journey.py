"""From a stock file to a trained model and back, through orchestrator, client and the trainer's real processes."""

import io
import zipfile

import pytest
import torch
from cellpose import vit
from support.limits import PATIENCE
from support.orchestrator import Orchestrator
from support.tiny_dataset import blobs, sparse
from unit.trainer_cellpose_sam.sam_samples import tiny_sam

from cellsparse import Client
from cellsparse.errors import CellsparseError


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    modules = {"CELLSPARSE_TRAINER_MODULES": "cellpose_sam=cellsparse_cellpose_sam"}
    with Orchestrator(tmp_path_factory.mktemp("orchestrator"), **modules) as running:
        running.healthy("sparsifier")
        running.healthy("cellpose_sam")
        with Client(running.address, timeout=PATIENCE) as client:
            yield client


@pytest.fixture(scope="module")
def dataset(client):
    items = []
    for number, split in enumerate(("train", "val")):
        image, dense = blobs(seed=number)
        items.append((f"item{number}", split, image, sparse(dense)))
    return client.create_dataset("tiny", items)


@pytest.fixture(scope="module")
def stock_file(tmp_path_factory):
    """A file that stock Cellpose 4 saved, of a network of the tiny size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vit.sam_model_registry, "vit_l", tiny_sam)
        torch.manual_seed(3)
        network = vit.CPSAM()
    path = tmp_path_factory.mktemp("stock") / "cpsam"
    network.save_model(str(path))
    return path


def test_from_the_users_weights_to_a_model_that_stock_cellpose_opens(
    client, dataset, stock_file, monkeypatch, tmp_path
):
    start = client.import_model(stock_file, "cellpose_sam", name="stock")
    run = client.train(
        dataset.id, "cellpose_sam", initial_model=start.id, steps=3, batch_size=1, validate_every_steps=3
    )
    log = [line for event in run.watch() for line in event.training.log_lines]
    assert any("CC-BY-NC" in line for line in log)
    done = run.wait()
    assert "score" in done.progress.start_validation
    image, _ = blobs(seed=7)
    assert client.predict(run.id, image).shape == image.shape
    client.export(run.id, "native", tmp_path / "native.zip")
    native = zipfile.ZipFile(tmp_path / "native.zip")
    weights = torch.load(io.BytesIO(native.read("cellpose_sam_model")), weights_only=True)
    monkeypatch.setitem(vit.sam_model_registry, "vit_l", tiny_sam)
    vit.CPSAM().load_state_dict(weights, strict=True)
    assert "CC-BY-NC" in native.read("README.md").decode()


def test_without_weights_a_training_is_refused_in_a_sentence(client, dataset):
    run = client.train(dataset.id, "cellpose_sam", steps=2)
    with pytest.raises(CellsparseError, match="trains from weights that you bring"):
        run.wait()
