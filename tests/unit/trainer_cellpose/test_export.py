"""Cellpose exports: the network in other formats gives the network's own output."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from support.bioimageio_package import CARD, validated
from unit.trainer_cellpose.cellpose_samples import small_config

from cellsparse_cellpose import model
from cellsparse_cellpose.export import EXPORTS
from cellsparse_cellpose.network import build_network, read_model


@pytest.fixture
def source(tmp_path):
    folder = empty(tmp_path / "model")
    config = small_config()
    model.CellposeModel(build_network(config), config, 12.0).export(folder)
    return folder


def empty(folder):
    folder.mkdir()
    return folder


@pytest.fixture
def image():
    return torch.rand(1, 2, 96, 112, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def expected(source, image):
    with torch.no_grad():
        return read_model(source).network.eval()(image)[0].numpy()


def test_torchscript(source, image, expected, tmp_path):
    EXPORTS["torchscript"](source, empty(tmp_path / "out"), CARD)
    (path,) = (tmp_path / "out").iterdir()
    with torch.no_grad():
        np.testing.assert_allclose(torch.jit.load(path)(image).numpy(), expected, atol=1e-5)


def test_onnx(source, image, expected, tmp_path):
    EXPORTS["onnx"](source, empty(tmp_path / "out"), CARD)
    (path,) = (tmp_path / "out").iterdir()
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": image.numpy()})
    np.testing.assert_allclose(output, expected, atol=1e-4)


def test_the_package_is_valid_and_reproduces_its_test_output(source, tmp_path):
    EXPORTS["bioimageio"](source, empty(tmp_path / "package"), CARD)
    weights, image, expected = validated(tmp_path / "package", tmp_path / "unpacked")
    with torch.no_grad():
        np.testing.assert_allclose(torch.jit.load(weights)(torch.from_numpy(image)).numpy(), expected, atol=1e-3)
