"""Training on stacks: crops, exact resume, export, prediction, and what is refused."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tifffile
import torch
from scipy import ndimage
from support.bioimageio_package import CARD, validated

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.images import normalize
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.background import likely_background
from cellsparse_trainer.data.samples import Sample
from cellsparse_unet import backend
from cellsparse_unet.config import resolve
from cellsparse_unet.crops import crop_at
from cellsparse_unet.data import Sampler, prepare
from cellsparse_unet.export import EXPORTS
from cellsparse_unet.model import UnetModel
from cellsparse_unet.network import UNet, initialise, read_model
from cellsparse_unet.spacing import fitted


def configured(preset=trainer_pb2.PRESET_FAST, **changes):
    settings = trainer_pb2.TrainingSettings(preset=preset, unet=trainer_pb2.UnetSettings(base_channels=4))
    config = resolve(settings, 1, stacks=True)
    plan = {"steps": 4, "batch_size": 2, "crop_size": 32, "crop_depth": 8, "device": "cpu"}
    plan |= {name: changes.pop(name) for name in list(changes) if hasattr(config.plan, name)}
    return replace(config, plan=replace(config.plan, **plan), **changes)


@pytest.fixture(scope="module")
def nuclei():
    """A part of stardist's stack of nuclei, two of them labelled, and some background beside them."""
    package = importlib.util.find_spec("stardist")
    folder = Path(package.submodule_search_locations[0]) / "data" / "images"
    part = np.s_[:20, :44, :40]
    dense = tifffile.imread(folder / "mask3d.tif")[part].astype(np.int32)
    image = normalize(tifffile.imread(folder / "img3d.tif")[part].astype(np.float32), 1, 99.8)
    largest = np.argsort(np.bincount(dense.ravel())[1:])[-2:] + 1
    kept = np.isin(dense, largest)
    beside = ndimage.binary_dilation(kept, iterations=3) & (dense == 0)
    label = np.where(kept, dense, np.where(beside, 0, -1)).astype(np.int32)
    image.setflags(write=False)
    label.setflags(write=False)
    return Sample(name="nuclei", image=image, label=label, spacing=(2.0, 1.0, 1.0))


def state(training):
    return {name: value.clone() for name, value in training.network.state_dict().items()}


def test_presets():
    settings = trainer_pb2.TrainingSettings(preset=trainer_pb2.PRESET_PAPER, unet=trainer_pb2.UnetSettings())
    plan = resolve(settings, 3, stacks=True).plan
    assert (plan.crop_depth, plan.crop_size, plan.batch_size, plan.steps) == (16, 384, 1, 300)
    settings.preset = trainer_pb2.PRESET_FAST
    plan = resolve(settings, 3, stacks=True).plan
    assert plan.crop_depth * plan.crop_size**2 < 100_000
    assert resolve(settings, 3).plan.crop_depth is None
    config = resolve(settings, 3, stacks=True)
    assert (config.centre_scale, config.centre_threshold) == (0.65, 0.5)
    settings.crop_depth = 32
    assert resolve(settings, 3, stacks=True).plan.crop_depth == 32
    assert type(config).from_json(config.to_json()) == config


def test_spacing_decides_the_network(nuclei):
    assert fitted(configured(), [nuclei]).flat_levels == 1
    assert fitted(configured(), [nuclei, replace(nuclei, spacing=(4.0, 1.0, 1.0)), nuclei]).plane_distance == 2
    with pytest.raises(InvalidArgument, match=r"crop_depth is 8; .* multiples of 16"):
        fitted(configured(), [replace(nuclei, spacing=())])
    assert fitted(configured(crop_depth=16), [replace(nuclei, spacing=())]).flat_levels == 0
    assert fitted(configured(crop_depth=1), [replace(nuclei, spacing=(30.0, 1.0, 1.0))]).flat_levels == 4


def test_other_axes_are_refused(nuclei, cell_sample, make_config):
    with pytest.raises(InvalidArgument, match=r"'cells' has 2 axes; allowed in this training: 3 \(ZYX"):
        backend.create(configured(), [nuclei, cell_sample], "cpu")
    with pytest.raises(InvalidArgument, match=r"'nuclei' has 3 axes; allowed in this training: 2 \(YX"):
        backend.create(make_config(), [nuclei], "cpu")
    model = backend.create(configured(), [nuclei], "cpu").model()
    with pytest.raises(InvalidArgument, match="allowed for this model: axes ZYX, 1 channel"):
        model.predict(cell_sample.image)


@pytest.mark.parametrize("preset", [trainer_pb2.PRESET_FAST, trainer_pb2.PRESET_PAPER])
@pytest.mark.parametrize("shape", [(3, 9, 20), (12, 50, 40)])
def test_crops_hold_a_labelled_voxel_and_nothing_from_outside(preset, shape):
    config = configured(preset, plane_distance=2.0)
    item = prepare(Sample(name="a", image=np.ones(shape, np.float32), label=np.ones(shape, np.int32)), config)
    largest = (1 + config.scale_range) ** 2 * (1 + config.scale_range / 2)
    for seed in range(10):
        image, classes = crop_at(item.image, item.classes, seed, config, np.random.default_rng(seed))
        assert image.shape == classes.shape == (8, 32, 32)
        assert np.isfinite(image).all()
        assert 0 < (classes >= 0).sum() <= largest * np.prod(np.add(shape, 2))


def test_batch_is_a_function_of_seed_and_step(nuclei):
    first, again = Sampler([nuclei], configured()), Sampler([nuclei], configured())
    first.batch(0)
    for a, b in zip(first.batch(3), again.batch(3), strict=True):
        np.testing.assert_array_equal(a, b)
    images, classes = again.batch(4)
    assert images.shape == (2, 1, 8, 32, 32)
    assert classes.shape == (2, 8, 32, 32)
    assert not np.array_equal(images, first.batch(3)[0])


def test_likely_background_counts_planes_by_their_distance():
    label = np.full((15, 40, 40), -1, np.int32)
    label[6:9, 12:28, 12:28] = 1
    image = np.where(label == 1, 0.8, 0.1).astype(np.float32)
    image[:, :, 34:] = 0.8  # something bright beyond reach
    found = likely_background(image, label, plane_distance=3.0)
    assert found[10, 20, 20]
    assert found[7, 20, 9]
    assert not found[label > 0].any()
    assert not found[:, 14:26, 36:].any()


def test_resumed_equals_uninterrupted(nuclei, tmp_path):
    config = configured()
    whole = backend.create(config, [nuclei], "cpu")
    losses = [whole.train_step(step) for step in range(4)]
    first = backend.create(config, [nuclei], "cpu")
    for step in range(2):
        first.train_step(step)
    first.save(tmp_path)
    second = backend.create(config, [nuclei], "cpu")
    second.load(tmp_path)
    assert [second.train_step(step) for step in (2, 3)] == losses[2:]
    for name, value in state(whole).items():
        assert torch.equal(value, state(second)[name]), name


def test_exported_model_predicts_the_same(nuclei, tmp_path):
    training = backend.create(configured(), [nuclei], "cpu")
    training.train_step(0)
    model = training.model()
    model.tune([nuclei])
    model.export(tmp_path)
    opened = backend.open_model(tmp_path, "cpu")
    assert opened.thresholds == model.thresholds
    assert opened.thresholds.plane_distance == 2
    assert read_model(tmp_path)[1].flat_levels == 1
    found = opened.predict(nuclei.image)
    np.testing.assert_array_equal(found, model.predict(nuclei.image))
    assert found.shape == nuclei.image.shape
    assert opened.predict(nuclei.image[:1, :5, :7]).shape == (1, 5, 7)


@pytest.fixture(params=[1, 3])
def source(request, tmp_path):
    (tmp_path / "model").mkdir()
    config = configured(flat_levels=request.param)
    net = UNet(base_channels=4, dims=3, flat_levels=request.param)
    initialise(net, 3)
    UnetModel(net, config).export(tmp_path / "model")
    return tmp_path / "model"


def test_other_formats_give_the_networks_output(source, tmp_path):
    net, config, _, _ = read_model(source)
    image = torch.rand(1, 1, 3 * net.multiples[0], 48, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net(image).numpy()
    for name in ("native", "torchscript", "onnx", "bioimageio"):
        (tmp_path / name).mkdir()
        EXPORTS[name](source, tmp_path / name, CARD)
    with torch.no_grad():
        found = torch.jit.load(tmp_path / "torchscript" / "network.pt")(image).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "network.onnx", providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"image": image.numpy()})
    assert np.abs(output - expected).mean() < 1e-3
    weights, tested, output = validated(tmp_path / "bioimageio", tmp_path / "unpacked")
    with torch.no_grad():
        np.testing.assert_allclose(torch.jit.load(weights)(torch.from_numpy(tested)).numpy(), output, atol=1e-3)
    text = (tmp_path / "native" / "README.md").read_text()
    assert f"torch.tensor([{[level < config.flat_levels for level in range(4)]}])" in text
    assert f"depth a multiple of {net.multiples[0]}" in text
