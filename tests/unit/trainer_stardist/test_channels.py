"""Three channels: trained, exported, imported, and the same cells in stock StarDist."""

import dataclasses
import json

import numpy as np
import pytest
from support.bioimageio_package import CARD, validated

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_stardist import backend
from cellsparse_stardist.export import EXPORTS
from cellsparse_stardist.framework import StarDist2D
from cellsparse_stardist.network import FOLDER

THREE = {**CARD, "preprocessing": {**CARD["preprocessing"], "channels": [0, 1, 2]}}


def coloured(sample):
    """The sample with three channels, each of another brightness."""
    noise = np.random.default_rng(0).random((*sample.image.shape, 3)).astype(np.float32)
    image = (sample.image[..., np.newaxis] * (1.0, 0.6, 0.3) + 0.1 * noise).astype(np.float32)
    return dataclasses.replace(sample, image=image)


def agreement(one, other):
    """The share of pixels that are cell in both, or in neither; sums in another order may move a pixel or two."""
    return np.mean((one > 0) == (other > 0))


@pytest.fixture
def config(tiny):
    return tiny(
        channels=(0, 1, 2), colour_shift=0.2, scale_range=0.25, average_rays=False, edge_margin=2, test_flips=False
    )


def test_three_channels_train_resume_and_open_in_stock_stardist(config, sparse_samples, tmp_path):
    samples = [coloured(sample) for sample in sparse_samples]
    training = backend.create(config, samples, "cpu")
    assert training.batches.batch(0).image.shape == (2, 32, 32, 3)
    training.train_step(0)
    for name in ("checkpoint", "native", "package", "imported"):
        (tmp_path / name).mkdir()
    training.save(tmp_path / "checkpoint")
    again = backend.create(config, samples, "cpu")
    again.load(tmp_path / "checkpoint")
    assert again.train_step(1) == training.train_step(1)

    model = training.model()
    model.stock.thresholds = {"prob": 0.2, "nms": 0.4}
    image = samples[1].image
    ours = model.predict(image)
    assert ours.shape == image.shape[:2]
    model.export(tmp_path / "model")
    assert agreement(backend.open_model(tmp_path / "model", "cpu").predict(image), ours) > 0.98

    EXPORTS["native"](tmp_path / "model", tmp_path / "native", THREE)
    assert "axis=(0, 1)" in (tmp_path / "native" / "README.md").read_text()
    stock = StarDist2D(None, name=FOLDER, basedir=str(tmp_path / "native"))
    assert stock.config.n_channel_in == 3
    own = backend.open_model(tmp_path / "model", "cpu").stock.predict(image)
    for theirs, mine in zip(stock.predict(image), own, strict=True):
        np.testing.assert_allclose(theirs, mine, atol=1e-4)
    labels, _ = stock.predict_instances(image)
    assert ours.max() > 0
    assert agreement(labels, ours) > 0.98

    EXPORTS["bioimageio"](tmp_path / "model", tmp_path / "package", THREE)
    _, tensor, _ = validated(tmp_path / "package", tmp_path / "unpacked")
    assert tensor.shape == (1, 128, 128, 3)

    backend.import_model(tmp_path / "native", tmp_path / "imported", trainer_pb2.ImportSettings(), None)
    written = json.loads((tmp_path / "imported" / "config.json").read_text())
    assert written["config"]["plan"]["channels"] == [0, 1, 2]
    assert agreement(backend.open_model(tmp_path / "imported", "cpu").predict(image), ours) > 0.98


def test_large_images_of_channels_go_through_in_tiles(config, sparse_samples, monkeypatch):
    sample = coloured(sparse_samples[0])
    model = backend.create(config, [sample], "cpu").model()
    model.stock.thresholds = {"prob": 0.1, "nms": 0.4}
    image = np.tile(sample.image, (3, 2, 1))
    whole = model.predict(image)
    monkeypatch.setattr("cellsparse_stardist.tiles.TILE", 64)
    assert agreement(model.predict(image), whole) > 0.98


def test_a_stock_model_of_too_many_channels_is_refused(config, sparse_samples, tmp_path):
    (tmp_path / "native").mkdir()
    backend.create(config, [coloured(sparse_samples[0])], "cpu").model().export(tmp_path / "model")
    EXPORTS["native"](tmp_path / "model", tmp_path / "native", THREE)
    path = tmp_path / "native" / FOLDER / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"n_channel_in": 17}))
    with pytest.raises(InvalidArgument, match="n_channel_in is 17; allowed: 1 to 16"):
        backend.import_model(tmp_path / "native", tmp_path / "target", trainer_pb2.ImportSettings(), None)
