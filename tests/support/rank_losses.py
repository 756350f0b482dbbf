"""Trains one torch backend for some steps; each rank writes its losses and a digest of its weights to FOLDER/RANK.json.

Usage: python -m support.rank_losses FOLDER BACKEND STEPS [float16], alone or by torchrun; 4 crops per step in all, in
float64 but for how gradients travel. Files, since lines that two ranks print at once can run into each other.
"""

import hashlib
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from support.tiny_dataset import blobs, sparse

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.distributed.ranks import find_ranks

BATCH = 4
SETTINGS = {
    "cellpose": trainer_pb2.TrainingSettings(
        learning_rate=1e-3,
        cellpose=trainer_pb2.CellposeSettings(optimizer=1, channels=[8, 256]),
    ),
    "unet": trainer_pb2.TrainingSettings(learning_rate=1e-4, unet=trainer_pb2.UnetSettings(base_channels=8)),
}


def main() -> None:
    """Train and write."""
    folder, backend, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    ranks = find_ranks()
    module = importlib.import_module(f"cellsparse_{backend}.backend")
    config = importlib.import_module(f"cellsparse_{backend}.config")
    settings = trainer_pb2.TrainingSettings(
        steps=steps,
        batch_size=BATCH // ranks.world,
        crop_size=32,
        seed=3,
        processes_per_node=ranks.world,
        rate_scaling=trainer_pb2.RATE_SCALING_NONE,
        gradient_format=trainer_pb2.GradientFormat.Value(f"GRADIENT_FORMAT_{(sys.argv[4:] or ['FLOAT32'])[0].upper()}"),
    )
    settings.MergeFrom(SETTINGS[backend])
    image, label = blobs(64, 0)
    sample = Sample(name="blobs", image=(image / 255).astype(np.float32), label=sparse(label))
    training = module.create(config.resolve(settings, 1), [sample], "cpu", None, ranks)
    network = training.network
    network.register_forward_pre_hook(lambda _, images: (images[0].double(),))
    losses = [training.train_step(step)["loss"] for step in range(steps)]
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in network.state_dict().values())).hexdigest()
    (folder / f"{ranks.rank}.json").write_text(json.dumps({"losses": losses, "weights": digest}))


if __name__ == "__main__":
    main()
