"""What a training takes besides its steps, in a trainer that is cold and in one that is warm.

Usage: PYTHONPATH=tests python benchmarks/first_step.py [--backends cellpose stardist unet] [--images 441]
       [--val-images 50] [--steps 20] [--k 1] [--threads 1] [--warm 2] [--out out/bench/first_step.json]

A trainer of each backend trains several times in a row over gRPC, each time for a few steps and one validation, on
sparse labels of DSB2018's images of all sizes. It keeps its framework loaded (`CELLSPARSE_WARM_SECONDS`), so the first
training is cold and the others are warm. Each has seconds: before the first step, from the request on; of a step; of
the validation; of all. `shares` has what the first training would spend with the steps that `fast` chooses for these
labels, and with as many validations.
"""

import argparse
import importlib
import json
import re
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from nuclei import BACKENDS, DSB2018, ROOT, Picture, Task, asked, commit, pictures
from support.server_process import ServerProcess

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.datasets import put_item, write_manifest
from cellsparse_common.imaging.labels import count_cells
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import ObjectStore, open_store
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2, trainer_pb2_grpc
from cellsparse_sparsifier.background import Background
from cellsparse_sparsifier.selection import Mode
from cellsparse_sparsifier.sparsify import Settings, sparsify
from cellsparse_trainer.config.budget import summarize
from cellsparse_trainer.training.resolution import grow

SECONDS = 1800.0
SPENT = re.compile(r"Of ([\d.]+) s, ([\d.]+) s passed before the first step, ([\d.]+) s in steps and ([\d.]+) s in val")
"""The line in which a training says what its time went into."""


def main() -> None:
    """Measure each backend and write a JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--images", type=int, default=441)
    parser.add_argument("--val-images", type=int, default=50)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--k", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--warm", type=int, default=2, help="trainings after the first")
    parser.add_argument("--data", type=Path, default=DSB2018)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "first_step.json")
    given = parser.parse_args()
    report: dict[str, Any] = {"commit": commit(), "threads": given.threads, "images": given.images}
    for backend in given.backends:
        with tempfile.TemporaryDirectory(prefix="cellsparse-bench-") as name:
            report[backend] = measure(backend, given, Path(name))
        print(backend, json.dumps(report[backend]), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")


def measure(backend: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what each training's time went into, and the shares of the first one at its full length."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(given.threads))
    store = folder / "store"
    cells = write_dataset(open_store(StoreSettings(store_url=f"file://{store}")), given)
    environment = {**threads, "CELLSPARSE_WARM_SECONDS": "3600"}
    with (
        ServerProcess(["-m", f"cellsparse_{backend}"], store, folder, **environment) as server,
        open_channel(server.address) as channel,
    ):
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        took = [train(stub, backend, f"bench-{number}", given.steps) for number in range(1 + given.warm)]
    warm = median(one["before"] for one in took[1:])
    plan = planned(backend, cells)
    return {
        "trainings": took,
        "warm_over_cold": round(warm / took[0]["before"], 3),
        "planned_steps": plan.steps,
        "planned_validations": -(-plan.steps // plan.validate_every),
        "shares": shares(took[0], plan.steps, -(-plan.steps // plan.validate_every)),
    }


def write_dataset(store: ObjectStore, given: argparse.Namespace) -> list[int]:
    """Store the sparse dataset "ds-bench", and return the labelled cells of each training image."""
    rule = Settings(mode=Mode.MINMAX, k=given.k, background=Background.SHIFTED)
    items, cells = [], []
    splits = {"train": (common_pb2.SPLIT_TRAIN, given.images), "val": (common_pb2.SPLIT_VAL, given.val_images)}
    for name, (split, count) in splits.items():
        for one in pictures(given.data, name, count, whole=True):
            label = sparse(one, rule)
            items.append(put_item(store, name=f"{name}-{one.name}", split=split, image=one.image, label=label))
            if name == "train":
                cells.append(count_cells(label))
    dataset = dataset_pb2.Dataset(id="ds-bench", name="bench")
    write_manifest(store, dataset_pb2.DatasetManifest(dataset=dataset, items=items))
    return cells


def sparse(picture: Picture, rule: Settings) -> Any:
    """Return the labels that the sparsifier keeps."""
    return sparsify(picture.image, picture.label, rule).label


def planned(backend: str, cells: list[int]) -> Any:
    """Return the plan that `fast` makes for these labels."""
    task = Task(backend=backend, k=0, background="shifted")
    config = importlib.import_module(f"cellsparse_{backend}.config").resolve(asked(task), len(cells))
    light: Any = importlib.import_module(f"cellsparse_{backend}.light")
    return grow(light, config, asked(task), summarize(cells)).plan


def train(stub: Any, backend: str, run_id: str, steps: int) -> dict[str, float]:
    """Train for some steps and one validation.

    Raises:
        RuntimeError: The training failed.
    """
    settings = trainer_pb2.TrainingSettings(steps=steps, validate_every_steps=steps, device=trainer_pb2.DEVICE_CPU)
    getattr(settings, backend).SetInParent()
    began = time.monotonic()
    stub.StartTraining(
        trainer_pb2.StartTrainingRequest(run_id=run_id, attempt=1, dataset_id="ds-bench", settings=settings),
        timeout=SECONDS,
    )
    started = time.monotonic() - began  # until its process was started, where its own clock begins
    watched = stub.WatchTraining(trainer_pb2.WatchTrainingRequest(run_id=run_id, attempt=1), timeout=SECONDS)
    events = [answer.event for answer in watched]
    if events[-1].state != common_pb2.RUN_STATE_SUCCEEDED:
        raise RuntimeError(events[-1].message)
    found = [said for event in events for line in event.log_lines if (said := SPENT.search(line))]
    total, before, stepping, validating = (float(number) for number in found[0].groups())
    return {
        "before": round(started + before, 2),
        "step": round(stepping / steps, 3),
        "validation": validating,
        "all": round(started + total, 2),
    }


def shares(one: dict[str, float], steps: int, validations: int) -> dict[str, float]:
    """Return the shares of a training with more steps and validations, alike in everything else.

    Args:
        one: What a short training took, see `train`.
        steps: Its number of steps.
        validations: Its number of validations.
    """
    parts = {
        "before": one["before"],
        "steps": one["step"] * steps,
        "validations": one["validation"] * validations,
    }
    whole = sum(parts.values())
    return {name: round(seconds / whole, 3) for name, seconds in parts.items()}


if __name__ == "__main__":
    main()
