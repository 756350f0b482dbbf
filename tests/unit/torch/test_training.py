"""Checkpoints of trainings with torch, of this release and of the first one."""

import torch

from cellsparse_torch.training import STATE_FILE, saved_weights


def test_a_checkpoint_of_release_0_1_0_is_read(tmp_path):
    weights = {"a": torch.ones(3)}
    for name in ("net", "network"):  # the U-Net's own name there, and that of all
        torch.save({name: weights, "optimizer": {}}, tmp_path / STATE_FILE)
        torch.testing.assert_close(saved_weights(tmp_path), weights)
