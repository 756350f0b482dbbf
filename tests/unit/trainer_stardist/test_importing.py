"""Weights files that point out of themselves are refused before Keras opens them."""

import h5py
import numpy as np
import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_stardist.importing import check_self_contained


def test_plain_weights_pass(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_group("layer/conv")["kernel:0"] = np.zeros((3, 3))
    check_self_contained(tmp_path / "w.h5")


@pytest.mark.parametrize("kind", ["external link", "soft link", "external data", "virtual data", "circle"])
def test_pointers_out_of_the_file_are_refused(tmp_path, kind):
    (tmp_path / "secret").write_bytes(b"12345678")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["kernel"] = np.zeros(4)
    with h5py.File(tmp_path / "w.h5", "w") as file:
        group = file.create_group("layer")
        if kind == "external link":
            group["kernel"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/kernel")
        elif kind == "soft link":
            group["kernel"] = h5py.SoftLink("/layer")
        elif kind == "external data":
            group.create_dataset("kernel", (1,), "<i8", external=[(str(tmp_path / "secret"), 0, 8)])
        elif kind == "virtual data":
            layout = h5py.VirtualLayout((4,), "<f8")
            layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "kernel", shape=(4,))
            group.create_virtual_dataset("kernel", layout)
        else:
            group["again"] = group
    with pytest.raises(InvalidArgument, match="points elsewhere"):
        check_self_contained(tmp_path / "w.h5")
