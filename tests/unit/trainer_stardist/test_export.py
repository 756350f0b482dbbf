"""StarDist exports: the SavedModel and the BioImage.IO package."""

import zipfile

import numpy as np
import pytest
from support.bioimageio_package import CARD, validated

from cellsparse_stardist.export import EXPORTS
from cellsparse_stardist.framework import tf
from cellsparse_stardist.model import StardistModel
from cellsparse_stardist.network import build_network, read_model


@pytest.fixture
def source(tiny, tmp_path):
    config = tiny()
    StardistModel(build_network(config, 4.0), config).export(tmp_path / "model")
    return tmp_path / "model"


def empty(folder):
    folder.mkdir()
    return folder


def test_the_saved_model_gives_stardists_output_upsampled(source, tmp_path):
    EXPORTS["saved_model"](source, empty(tmp_path / "out"), CARD)
    image = np.random.default_rng(0).random((1, 64, 96, 1), np.float32)
    network = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    output = network(tf.constant(image))["output"].numpy()
    prob, dist = read_model(source).stock.keras_model(image)
    assert output.shape == (1, 64, 96, 1 + 8)
    np.testing.assert_allclose(output[:, ::2, ::2, :1], prob, atol=1e-5)
    np.testing.assert_allclose(output[:, ::2, ::2, 1:], dist, atol=1e-4)
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"saved_model.pb", "variables/variables.index"} <= names
    assert not any(name.endswith(".zip") for name in names)


def test_the_package_is_valid_and_reproduces_its_test_output(source, tmp_path):
    EXPORTS["bioimageio"](source, empty(tmp_path / "package"), CARD)
    weights, image, expected = validated(tmp_path / "package", tmp_path / "unpacked")
    with zipfile.ZipFile(weights) as archive:
        archive.extractall(tmp_path / "bundle")
    network = tf.saved_model.load(str(tmp_path / "bundle")).signatures["serving_default"]
    np.testing.assert_allclose(network(tf.constant(image))["output"].numpy(), expected, atol=1e-3)
