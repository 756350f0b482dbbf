"""Weights that people bring: what is taken, and what is refused in a sentence."""

import json

import pytest
import torch
from cellpose import vit
from unit.trainer_cellpose_sam.sam_samples import DEPTH, HEADS, WIDTH, tiny_config, tiny_sam

from cellsparse_cellpose_sam.importing import import_model
from cellsparse_cellpose_sam.model import CellposeSamModel
from cellsparse_cellpose_sam.network import WEIGHTS_FILE, build_network, read_model
from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.contract import CONFIG_FILE

SETTINGS = trainer_pb2.ImportSettings(backend="cellpose_sam")


@pytest.fixture
def stock_state(monkeypatch):
    """The state dict of a network that stock Cellpose built, in the tiny size."""
    monkeypatch.setitem(vit.sam_model_registry, "vit_l", tiny_sam)
    torch.manual_seed(3)
    return vit.CPSAM().state_dict()


def imported(state, folder):
    folder.mkdir()
    torch.save(state, folder / "cpsam")
    target = folder / "model"
    target.mkdir()
    import_model(folder / "cpsam", target, SETTINGS, None)
    return read_model(target)


@pytest.mark.parametrize("form", ["stock", "parallel", "half", "bare"])
def test_a_file_of_the_stock_tool(stock_state, form, tmp_path):
    given = {
        "stock": stock_state,
        "parallel": {f"module.{name}": value for name, value in stock_state.items()},
        "half": {name: value.bfloat16() for name, value in stock_state.items()},
        "bare": {name: value for name, value in stock_state.items() if not name.startswith("diam_")},
    }[form]
    stored = imported(given, tmp_path / "in")
    assert stored.config.encoder == (DEPTH, WIDTH, HEADS)
    assert stored.diameter == 30
    found = stored.network.state_dict()
    assert found.keys() == stock_state.keys()
    tolerance = 0.02 if form == "half" else 0
    for name, value in stock_state.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


def test_an_export_keeps_its_settings(tmp_path):
    folder, target = tmp_path / "own", tmp_path / "again"
    folder.mkdir()
    target.mkdir()
    config = tiny_config(cellprob_threshold=-1.5, min_size=3)
    CellposeSamModel(build_network(config), config, 21.0).export(folder)
    record = json.loads((folder / CONFIG_FILE).read_text())
    import_model(folder, target, SETTINGS, record)
    stored = read_model(target)
    assert (stored.config, stored.diameter) == (config, 21.0)


def test_other_files_are_refused_with_what_they_are(stock_state, tmp_path):
    last = f"encoder.blocks.{DEPTH - 1}.norm1.weight"
    cases = {
        "Cellpose-DINO": {**stock_state, "encoder.cls_token": torch.zeros(1)},
        "import it with backend cellpose": {"downsample.down.res_down_0.proj.1.weight": torch.zeros(1)},
        "also classifies": {**stock_state, "out.bias": torch.zeros(5 * 64)},
        "lacks a vision transformer's weights": {"weight": torch.zeros(3)},
        "not finite": {**stock_state, "out.bias": torch.full((192,), float("nan"))},
        last: {name: value for name, value in stock_state.items() if name != last},
    }
    for number, (said, state) in enumerate(cases.items()):
        with pytest.raises(InvalidArgument) as caught:
            imported(state, tmp_path / str(number))
        assert said in caught.value.message
        assert not (tmp_path / str(number) / "model" / WEIGHTS_FILE).exists()


def test_a_file_that_is_no_weights_at_all(tmp_path):
    (tmp_path / "noise").write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidArgument, match="no PyTorch file of weights alone"):
        import_model(tmp_path / "noise", tmp_path, SETTINGS, None)
