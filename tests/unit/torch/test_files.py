"""State dicts that somebody sends: only arrays are read, and only those of the network."""

import pytest
import torch
from torch import nn

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_torch import files
from cellsparse_torch.files import find_state, load_checked, read_state, write_state


def saved(value, path):
    torch.save(value, path)
    return path


def test_a_network_survives_its_file(tmp_path):
    network, other = nn.Linear(2, 3), nn.Linear(2, 3)
    write_state(network, tmp_path / "a.pt")
    load_checked(other, read_state(find_state(tmp_path, "a.pt"), "linear layer"), "linear layer")
    assert torch.equal(network.weight, other.weight)


def test_other_files_are_refused(tmp_path):
    state = nn.Linear(2, 3).state_dict()
    for value in ([state], {"a": 1}, 3):
        with pytest.raises(InvalidArgument, match="no linear layer: it holds no state dict"):
            read_state(saved(value, tmp_path / "x"), "linear layer")
    assert read_state(saved([state], tmp_path / "x"), "linear layer", in_list=True).keys() == state.keys()
    with pytest.raises(InvalidArgument, match="an ensemble of 2 networks"):
        read_state(saved([state, state], tmp_path / "x"), "linear layer", in_list=True)
    (tmp_path / "x").write_bytes(b"nothing")
    with pytest.raises(InvalidArgument, match="never loaded"):
        read_state(tmp_path / "x", "linear layer")
    with pytest.raises(InvalidArgument, match=r"holds no file b\.pt"):
        find_state(tmp_path, "b.pt")


def test_weights_must_fit_and_be_finite():
    network = nn.Linear(2, 3)
    with pytest.raises(InvalidArgument, match="weight has shape"):
        load_checked(network, nn.Linear(4, 3).state_dict(), "linear layer")
    broken = {name: value * float("nan") for name, value in network.state_dict().items()}
    with pytest.raises(InvalidArgument, match="not finite"):
        load_checked(network, broken, "linear layer")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_very_many_arrays_is_refused_before_they_are_built(tmp_path, monkeypatch, zipped):
    path = tmp_path / "many.pt"
    torch.save({str(n): torch.zeros(0) for n in range(50)}, path, _use_new_zipfile_serialization=zipped)
    assert len(read_state(path, "linear layer")) == 50
    monkeypatch.setattr(files, "_MOST_STEPS", 500)
    with pytest.raises(ResourceExhausted, match="more than 500 steps"):
        read_state(path, "linear layer")
