"""Several channels, of images and of stacks: trained, tiled, exported and imported."""

import dataclasses

import numpy as np
import onnxruntime
import pytest
import torch
from support.bioimageio_package import CARD, validated

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample
from cellsparse_unet import backend
from cellsparse_unet.config import resolve
from cellsparse_unet.export import EXPORTS
from cellsparse_unet.network import UNet, initialise
from cellsparse_unet.tiles import flipped_probabilities, probabilities

CHANNELS = (3, 0, 1)
CARD_3 = {**CARD, "preprocessing": {**CARD["preprocessing"], "channels": CHANNELS}}


def sample(stack=False):
    """Two bright cells in the first channel, noise in the others."""
    shape = (12, 48, 56) if stack else (48, 56)
    rng = np.random.default_rng(0)
    image = 0.2 * rng.random((*shape, len(CHANNELS))).astype(np.float32)
    label = np.full(shape, -1, np.int32)
    for number, (y, x) in enumerate([(14, 14), (30, 38)], 1):
        cell = np.zeros(shape, bool)
        cell[..., y - 6 : y + 6, x - 6 : x + 6] = True
        label[cell], image[cell, 0] = number, 0.9
    return Sample(name="s", image=image, label=label, spacing=(1.0,) * len(shape))


def configured(stack=False):
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(base_channels=4))
    config = resolve(settings, 1, stacks=stack)
    changes = {"steps": 4, "batch_size": 2, "crop_size": 32, "channels": CHANNELS, "colour_shift": 0.2}
    return dataclasses.replace(config, plan=dataclasses.replace(config.plan, **changes))


@pytest.mark.parametrize("stack", [False, True])
def test_channels_train_and_resume_exactly(tmp_path, stack):
    config, item = configured(stack), sample(stack)
    training = backend.create(config, [item], "cpu")
    images, classes = training.batches.batch(0)
    assert images.shape == (2, 3, *classes.shape[1:])
    training.train_step(0)
    training.save(tmp_path)
    again = backend.create(config, [item], "cpu")
    again.load(tmp_path)
    assert again.train_step(1) == training.train_step(1)
    assert backend.open_checkpoint(tmp_path, "cpu").predict(item.image).shape == item.label.shape
    with pytest.raises(InvalidArgument, match="3 channel"):
        training.model().predict(item.image[..., 0])


def test_tiles_and_mirror_images_keep_the_channels():
    network = UNet(base_channels=4, inputs=3).eval()
    initialise(network, 1)
    image = np.random.default_rng(1).random((100, 120, 3)).astype(np.float32)
    whole = probabilities(network, image)
    np.testing.assert_allclose(probabilities(network, image, tile=64), whole, atol=1e-4)
    mirrored = flipped_probabilities(network, np.ascontiguousarray(image[:, ::-1]))[:, :, ::-1]
    np.testing.assert_allclose(mirrored, flipped_probabilities(network, image), atol=1e-2)
    assert np.abs(whole - probabilities(network, image[..., ::-1])).max() > 0.01


def test_exports_take_the_channels_and_come_back(tmp_path):
    item = sample()
    model = backend.create(configured(), [item], "cpu").model()
    for name in ("model", "native", "onnx", "package", "imported"):
        (tmp_path / name).mkdir()
    model.export(tmp_path / "model")
    EXPORTS["native"](tmp_path / "model", tmp_path / "native", CARD_3)
    assert "channels 3 (channel3), 0 (channel0), 1" in (tmp_path / "native" / "README.md").read_text()
    file = tmp_path / "native" / "unet.pt"
    backend.import_model(file, tmp_path / "imported", trainer_pb2.ImportSettings(), None)
    opened = backend.open_model(tmp_path / "imported", "cpu")
    found = opened._probabilities(item.image)
    assert found.shape == (3, 48, 56)

    EXPORTS["onnx"](tmp_path / "model", tmp_path / "onnx", CARD_3)
    (path,) = (tmp_path / "onnx").iterdir()
    planes = np.random.default_rng(2).random((1, 3, 64, 64)).astype(np.float32)
    (output,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": planes})
    with torch.no_grad():
        np.testing.assert_allclose(output, model._network.eval()(torch.from_numpy(planes)).numpy(), atol=1e-2)
    EXPORTS["bioimageio"](tmp_path / "model", tmp_path / "package", CARD_3)
    _, tensor, _ = validated(tmp_path / "package", tmp_path / "unpacked")
    assert tensor.shape == (1, 3, 128, 128)
