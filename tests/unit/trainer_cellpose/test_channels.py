"""Two channels, cytoplasm and nucleus: trained, exported, and the same numbers in stock Cellpose."""

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from cellpose.models import CellposeModel as StockModel
from support.bioimageio_package import CARD, validated
from unit.trainer_cellpose.cellpose_samples import disc_sample, small_config

from cellsparse_cellpose import backend
from cellsparse_cellpose.config import Config
from cellsparse_cellpose.export import EXPORTS
from cellsparse_cellpose.network import WEIGHTS_FILE, read_model
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample

TWO = {**CARD, "preprocessing": {**CARD["preprocessing"], "channels": [0, 1]}, "channel_names": ["GFP", "DAPI"]}


def two_channels() -> tuple[Config, Sample]:
    """Discs in the first channel, their middles in the second one."""
    one = disc_sample()
    nuclei = np.roll(one.image, 3, axis=1) * (np.arange(one.image.shape[1]) % 9 < 5)
    image = np.stack([one.image, nuclei], axis=-1).astype(np.float32)
    config = small_config(channels=(32, 64, 128, 256), cellprob_threshold=-6.0, flow_threshold=0.0)
    plan = dataclasses.replace(config.plan, channels=(0, 1), colour_shift=0.2)
    return dataclasses.replace(config, plan=plan), dataclasses.replace(one, image=image)


def test_two_channels_train_resume_and_open_in_stock_cellpose(tmp_path: Path) -> None:
    config, sample = two_channels()
    training = backend.create(config, [sample], "cpu")
    batch = training.batches.batch(0)
    assert batch.image.shape == (2, 2, 32, 32)
    assert np.ptp(batch.image[:, 1]) > 0.1
    training.train_step(0)
    for name in ("checkpoint", "model", "native", "onnx", "package"):
        (tmp_path / name).mkdir()
    training.save(tmp_path / "checkpoint")
    again = backend.create(config, [sample], "cpu")
    again.load(tmp_path / "checkpoint")
    assert again.train_step(1) == training.train_step(1)
    model = training.model()
    model.export(tmp_path / "model")
    opened = backend.open_model(tmp_path / "model", "cpu")
    np.testing.assert_array_equal(opened.predict(sample.image), model.predict(sample.image))
    ours = opened._outputs(sample.image[np.newaxis], 1.0)[0]

    EXPORTS["native"](tmp_path / "model", tmp_path / "native", TWO)
    assert "channels=[1, 2]" in (tmp_path / "native" / "README.md").read_text()
    stock = StockModel(pretrained_model=str(tmp_path / "native" / WEIGHTS_FILE))
    _, (_, flow, cellprob), _ = stock.eval(
        sample.image, channels=[1, 2], diameter=stock.diam_mean, normalize=False, compute_masks=False
    )
    np.testing.assert_allclose(ours, np.concatenate([flow, cellprob[np.newaxis]]), atol=1e-3)
    assert np.abs(ours - opened._outputs(sample.image[np.newaxis, ..., ::-1], 1.0)[0]).max() > 0.01

    EXPORTS["onnx"](tmp_path / "model", tmp_path / "onnx", TWO)
    (path,) = (tmp_path / "onnx").iterdir()
    planes = np.moveaxis(sample.image[:56, :64], -1, 0)[np.newaxis]
    (output,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": planes})
    with torch.no_grad():
        expected = read_model(tmp_path / "model").network.eval()(torch.from_numpy(planes))[0].numpy()
    np.testing.assert_allclose(output, expected, atol=1e-3)
    EXPORTS["bioimageio"](tmp_path / "model", tmp_path / "package", TWO)
    _, image, _ = validated(tmp_path / "package", tmp_path / "unpacked")
    assert np.ptp(image[:, 1]) > 0.5


def test_a_stock_model_is_imported_for_two_channels_where_they_are_named(tmp_path: Path) -> None:
    config, sample = two_channels()
    for name in ("model", "one", "two"):
        (tmp_path / name).mkdir()
    backend.create(config, [sample], "cpu").model().export(tmp_path / "model")
    file = tmp_path / "model" / WEIGHTS_FILE
    backend.import_model(file, tmp_path / "one", trainer_pb2.ImportSettings(), None)
    backend.import_model(file, tmp_path / "two", trainer_pb2.ImportSettings(channels=[2, 0]), None)
    assert backend.open_model(tmp_path / "one", "cpu").predict(sample.image[..., 0]).shape == (60, 70)
    assert backend.open_model(tmp_path / "two", "cpu").predict(sample.image).shape == (60, 70)


def test_stacks_of_two_channels_are_segmented() -> None:
    config, sample = two_channels()
    stack = np.stack([sample.image] * 3)
    assert backend.create(config, [sample], "cpu").model().segment_stack(stack).labels.shape == (3, 60, 70)
