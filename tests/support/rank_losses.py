"""Trains torch backends for some steps, alone and together; each rank writes its losses and a digest of its weights.

Usage: python -m support.rank_losses FOLDER STEPS; 4 crops per step in all, in float64 but for how gradients travel.
Rank R of a case writes FOLDER/CASE/R.json, with the losses of the steps that it took, and rank 0 the last weights.
Ranks are forked from one process that has loaded the backends, as loading takes longer than all steps. They find their
place in the same variables in which torchrun tells it.
"""

import hashlib
import importlib
import json
import os
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
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
        precision=trainer_pb2.PRECISION_FLOAT32,
        cellpose=trainer_pb2.CellposeSettings(optimizer=1, channels=[8, 256]),
    ),
    "unet": trainer_pb2.TrainingSettings(
        learning_rate=1e-4,
        precision=trainer_pb2.PRECISION_FLOAT32,
        unet=trainer_pb2.UnetSettings(base_channels=8),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One training.

    Attributes:
        backend: Which of `SETTINGS`.
        ranks: Number of processes.
        gradients: Name of their gradients' format on the way.
        left: How many of them go on after half of the steps, from the checkpoint of two; 0: nobody is lost.
    """

    backend: str
    ranks: int = 1
    gradients: str = "FLOAT32"
    left: int = 0

    @property
    def name(self) -> str:
        return f"{self.backend}-{self.ranks}-{self.gradients}" + (f"-{self.left}" if self.left else "")


CASES = [
    *(Case(backend=backend, ranks=ranks) for backend in SETTINGS for ranks in (1, 2)),
    *(Case(backend=backend, ranks=2, left=1) for backend in SETTINGS),
    Case(backend="unet", ranks=4, left=3),  # as good a checkpoint for four, who take the same steps
    Case(backend="unet", ranks=2, gradients="FLOAT16"),
]


def main() -> None:
    """Train all cases, one after the other."""
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    modules = {backend: importlib.import_module(f"cellsparse_{backend}.backend") for backend in SETTINGS}
    for case in CASES:
        (folder / case.name).mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        world = case.left or case.ranks
        pids = [_fork(case, modules[case.backend], rank, port, folder, steps) for rank in range(world)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        if any(codes):
            sys.exit(f"{case.name}: its ranks ended with {codes}")


def _fork(case: Case, module: object, rank: int, port: int, folder: Path, steps: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{case.left or case.ranks}"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    code = 1
    try:
        _train(case, module, folder, steps)
        code = 0
    except BaseException:  # noqa: BLE001 a rank says whatever ends it
        traceback.print_exc()
    finally:
        os._exit(code)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _train(case: Case, module: object, folder: Path, steps: int) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    ranks = find_ranks()
    settings = trainer_pb2.TrainingSettings(
        steps=steps,
        batch_size=BATCH // case.ranks,
        crop_size=32,
        seed=3,
        processes_per_node=case.ranks,
        rate_scaling=trainer_pb2.RATE_SCALING_NONE,
        gradient_format=trainer_pb2.GradientFormat.Value(f"GRADIENT_FORMAT_{case.gradients}"),
    )
    settings.MergeFrom(SETTINGS[case.backend])
    image, label = blobs(64, 0)
    sample = Sample(name="blobs", image=(image / 255).astype(np.float32), label=sparse(label))
    config = importlib.import_module(f"cellsparse_{case.backend}.config").resolve(settings, 1)
    training = module.create(config, [sample], "cpu", None, ranks)
    network = training.network
    network.register_forward_pre_hook(lambda _, images: (images[0].double(),))
    checkpoint = folder / Case(backend=case.backend, ranks=2).name / "checkpoint"
    losses = []
    if case.left:
        training.load(checkpoint)
    for step in range(steps // 2 if case.left else 0, steps):
        if step == steps // 2 and ranks.leads and case == Case(backend=case.backend, ranks=2):
            checkpoint.mkdir()
            training.save(checkpoint)
        losses.append(training.train_step(step)["loss"])
    weights = [value.numpy() for value in network.state_dict().values()]
    if ranks.leads:
        np.save(folder / case.name / "weights.npy", np.concatenate([value.ravel() for value in weights]))
    digest = hashlib.sha256(b"".join(value.tobytes() for value in weights)).hexdigest()
    (folder / case.name / f"{ranks.rank}.json").write_text(json.dumps({"losses": losses, "weights": digest}))


if __name__ == "__main__":
    main()
