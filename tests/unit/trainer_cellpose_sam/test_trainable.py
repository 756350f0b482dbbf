"""Which weights a training changes, and that low-rank updates vanish in what is exported."""

import pytest
import torch
from unit.trainer_cellpose_sam.sam_samples import disc_sample, tiny_config

from cellsparse_cellpose_sam import backend
from cellsparse_cellpose_sam.network import build_network, read_model
from cellsparse_cellpose_sam.trainable import LowRankLinear, choose_trainable, merged


def image() -> torch.Tensor:
    return torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(2))


def test_a_low_rank_update_begins_as_nothing_and_is_merged_exactly():
    torch.manual_seed(0)
    layer = LowRankLinear(torch.nn.Linear(6, 4), rank=2)
    x = torch.rand(3, 6)
    torch.testing.assert_close(layer(x), layer.base(x), rtol=0, atol=0)
    layer.up.data.normal_()
    state = merged({f"encoder.x.{name}": value for name, value in layer.state_dict().items()})
    assert set(state) == {"encoder.x.weight", "encoder.x.bias"}
    expected = torch.nn.functional.linear(x, state["encoder.x.weight"], state["encoder.x.bias"])
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    ("trainable", "moves"),
    [
        ("readout", ("encoder.neck.", "out.")),
        ("lora", ("encoder.neck.", "out.", ".attn.")),
        ("all", ("encoder.neck.", "out.", "encoder.blocks.", "encoder.pos_embed")),
    ],
)
def test_only_the_chosen_weights_change(trainable, moves, tmp_path):
    config = tiny_config(trainable=trainable)
    start = build_network(config).state_dict()
    training = backend.create(config, [disc_sample()], "cpu")
    for step in range(3):  # the updates' second factor moves once the first has
        training.train_step(step)
    training.model().export(tmp_path)
    after = read_model(tmp_path).network.state_dict()
    assert after.keys() == start.keys()
    changed = {name for name in start if not torch.equal(start[name], after[name])} - {"diam_labels"}
    assert changed
    assert all(name.startswith(moves) or any(part in name for part in moves if part[0] == ".") for name in changed)
    if trainable == "lora":
        attention = {name for name in changed if ".attn." in name}
        assert {name.split(".attn.")[1] for name in attention} == {"qkv.weight", "proj.weight"}
    assert not any(name.startswith(("W2", "encoder.patch_embed.")) for name in changed)


def test_the_exported_network_answers_as_the_trained_one(tmp_path):
    training = backend.create(tiny_config(), [disc_sample()], "cpu")
    for step in range(2):
        training.train_step(step)
    training.model().export(tmp_path)
    with torch.no_grad():
        expected = training.network.eval()(image())[0]
        found = read_model(tmp_path).network.eval()(image())[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_never_learns_asks_for_no_gradient():
    network = build_network(tiny_config())
    choose_trainable(network, tiny_config(trainable="all"))
    fixed = {name for name, weight in network.named_parameters() if not weight.requires_grad}
    assert fixed == {
        "W2",
        "diam_mean",
        "diam_labels",
        "encoder.patch_embed.proj.weight",
        "encoder.patch_embed.proj.bias",
    }
