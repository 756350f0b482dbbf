"""The network is stock Cellpose's, whatever its size; nothing is fetched."""

import socket

import numpy as np
import pytest
import torch
from cellpose import vit
from cellpose.models import CellposeModel as StockModel
from unit.trainer_cellpose_sam.sam_samples import disc_sample, tiny_config, tiny_sam

from cellsparse_cellpose_sam.config import ENCODER
from cellsparse_cellpose_sam.export import EXPORTS
from cellsparse_cellpose_sam.model import CellposeSamModel
from cellsparse_cellpose_sam.network import WEIGHTS_FILE, _encoder, build_network, empty_network, read_model
from cellsparse_cellpose_sam.tiles import run

CARD = {"preprocessing": {"channel": None, "lower_percentile": 1.0, "upper_percentile": 99.8}}


@pytest.fixture(autouse=True)
def no_internet(monkeypatch):
    def refuse(*args):
        raise AssertionError(f"something connects to {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def model_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    config = tiny_config(cellprob_threshold=-6.0, flow_threshold=0.0, min_size=0)
    CellposeSamModel(build_network(config), config, 17.0).export(folder)
    return folder


def shapes(module):
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_weights_have_stock_names_and_shapes_in_the_real_size():
    with torch.device("meta"):
        stock = vit.CPSAM()
        ours = _encoder(ENCODER)
    assert shapes(ours) == shapes(stock.encoder)
    assert shapes(empty_network(ENCODER)) == shapes(stock)
    assert [block.window_size for block in ours.blocks] == [block.window_size for block in stock.encoder.blocks]


def test_fresh_weights_depend_on_the_seed_and_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    first, second = build_network(tiny_config()), build_network(tiny_config())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one, two) for one, two in zip(first.parameters(), second.parameters(), strict=True))


def test_stock_cellpose_opens_the_native_export_and_computes_the_same(model_folder, monkeypatch, tmp_path):
    monkeypatch.setitem(vit.sam_model_registry, "vit_l", tiny_sam)  # stock builds its network in the tiny size
    target = tmp_path / "native"
    target.mkdir()
    EXPORTS["native"](model_folder, target, CARD)
    stock = StockModel(gpu=False, pretrained_model=str(target / WEIGHTS_FILE), use_bfloat16=False)
    stored = read_model(model_folder)
    assert shapes(stock.net) == shapes(stored.network)
    image = disc_sample((70, 300)).image
    planes = np.stack([image, 0 * image, 0 * image], axis=-1)
    _, flows, _ = stock.eval(planes, normalize=False, channel_axis=2, compute_masks=False)
    output = run(stored.network, image)
    np.testing.assert_allclose(output[:2], flows[1], atol=1e-4)
    np.testing.assert_allclose(output[2], flows[2], atol=1e-4)
    assert "CC-BY-NC" in (target / "README.md").read_text()


def test_torchscript_gives_the_networks_own_output(model_folder, tmp_path):
    target = tmp_path / "script"
    target.mkdir()
    EXPORTS["torchscript"](model_folder, target, CARD)
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = read_model(model_folder).network.eval()(image)[0]
        torch.testing.assert_close(torch.jit.load(target / "network.pt")(image), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (33, 40), (300, 257)])
def test_images_of_any_size_are_segmented(model_folder, shape):
    stored = read_model(model_folder)
    model = CellposeSamModel(stored.network, stored.config, stored.diameter)
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    found = model.segment(image)
    assert found.labels.shape == shape
    assert len(found.scores) == found.labels.max()


def test_a_stack_is_its_planes_joined(model_folder):
    stored = read_model(model_folder)
    model = CellposeSamModel(stored.network, stored.config, stored.diameter)
    plane = disc_sample().image
    found = model.segment_stack(np.stack([plane, plane]))
    np.testing.assert_array_equal(found.labels[0], found.labels[1])
    np.testing.assert_array_equal(found.labels[0] > 0, model.predict(plane) > 0)
