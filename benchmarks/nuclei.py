"""The common part of the trainers' benchmarks: images of nuclei, sparse labels, and one training per process.

The images are those of DSB2018 with 256 x 256 pixels in FOLDER/train and FOLDER/val (default:
../shared/data/dsb2018). Without them, tiles of the nuclei image that ships with stardist are used, and the report says
so. The images of `val` are only for scoring: as in a run on a dataset without VAL items, the best checkpoint and the
thresholds are chosen with the training items.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cellsparse.demo.source import demo_items
from cellsparse_common.imaging.labels import count_cells
from cellsparse_common.scoring.matching import Counts, match_counts
from cellsparse_common.storage.folder import FolderStore
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_sparsifier.background import Background
from cellsparse_sparsifier.selection import Mode
from cellsparse_sparsifier.sparsify import Settings, sparsify
from cellsparse_trainer.config.budget import summarize
from cellsparse_trainer.config.plan import Plan
from cellsparse_trainer.contract import Backend, Model
from cellsparse_trainer.data.copy_paste import augmented
from cellsparse_trainer.data.samples import Sample, as_fed
from cellsparse_trainer.training import loop
from cellsparse_trainer.training.checkpoints import Checkpoints
from cellsparse_trainer.training.resolution import grow
from cellsparse_trainer.training.validation import windows

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
"""Measured results that are kept with the code."""
DSB2018 = ROOT.parent / "shared" / "data" / "dsb2018"
SIDE = 256
BACKENDS = ("cellpose", "stardist", "unet")
FULL = 65535
"""The k that keeps every cell."""
DENSE = "dense"
"""Background of labels that are not sparsified at all."""
CHILD_SECONDS = 6 * 3600


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image (YX or YXC, as stored) and its dense label image (int32 YX)."""

    name: str
    image: np.ndarray
    label: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Task:
    """One training, passed as JSON to the child's standard input."""

    backend: str
    """One of `BACKENDS`."""
    k: int
    """MINMAX: the k darkest and the k brightest cells of each image; `FULL` keeps all."""
    background: str
    """A background rule of the sparsifier in lower case, or `DENSE`."""
    seed: int = 0
    preset: str = "fast"
    settings: dict[str, Any] = field(default_factory=dict)
    """Fields of TrainingSettings that replace the preset's; the backend's own under its name."""
    config: dict[str, Any] = field(default_factory=dict)
    """Fields of the backend's resolved configuration that have no setting, for trials."""
    plan: dict[str, Any] = field(default_factory=dict)
    """Fields of the plan that data decide, such as channels."""
    train_images: int = 32
    val_images: int = 31
    whole: bool = False
    """Images of all sizes; and the images of "val" choose the best checkpoint and the thresholds, sparsified as those
    of "train" are. They score the model with all their labels."""
    data: str = str(DSB2018)


def pictures(data: Path, split: str, count: int, *, whole: bool = False) -> list[Picture]:
    """Return the first images of a split ("train" or "val") by name; of all sizes with `whole`."""
    return [picture for picture, _ in zip(_read(data, split, whole), range(count), strict=False)]


def data_name(data: Path) -> str:
    """Return a description of the images."""
    return f"DSB2018 {SIDE} x {SIDE}" if (data / "train" / "images").is_dir() else "stardist's nuclei image in tiles"


def _read(data: Path, split: str, whole: bool) -> Iterator[Picture]:
    import tifffile

    if not (data / split / "images").is_dir():
        wanted = {"train": "train", "val": "test"}[split]
        for item in demo_items(None):
            if item.split == wanted:
                yield Picture(name=item.name, image=np.asarray(item.image), label=np.asarray(item.label, np.int32))
        return
    for path in sorted((data / split / "images").glob("*.tif")):
        image = tifffile.imread(path)
        if whole or image.shape[:2] == (SIDE, SIDE):
            label = tifffile.imread(data / split / "masks" / path.name).astype(np.int32)
            yield Picture(name=path.stem, image=image, label=label)


def samples(found: Sequence[Picture], plan: Plan, *, k: int, background: str) -> list[Sample]:
    """Sparsify and normalise images as the services do; leave out images without a labelled cell."""
    out = []
    for picture in found:
        label = picture.label
        if background != DENSE:
            rule = Background[background.upper()]
            label = sparsify(picture.image, label, Settings(mode=Mode.MINMAX, k=k, background=rule)).label
        if (label > 0).any():
            image = as_fed(picture.image, plan, stack=False)
            out.append(Sample(name=picture.name, image=image, label=label))
    return out


def asked(task: Task) -> trainer_pb2.TrainingSettings:
    """Return the settings that a task gives."""
    from google.protobuf import json_format

    settings = trainer_pb2.TrainingSettings(preset=trainer_pb2.Preset.Value(f"PRESET_{task.preset.upper()}"))
    json_format.ParseDict({task.backend: {}, **task.settings}, settings)
    settings.seed, settings.device = task.seed, trainer_pb2.DEVICE_CPU
    return settings


def fitted(config: Any, task: Task, items: Sequence[Sample]) -> Any:
    """Return a configuration fitted to the labelled cells, as the trainer's server fits it."""
    cells = summarize(count_cells(item.label) for item in items)
    light: Any = importlib.import_module(f"cellsparse_{task.backend}.light")
    return config if {"plan", "steps"} & task.config.keys() else grow(light, config, asked(task), cells)


def configure(task: Task, items: int) -> tuple[Backend, Any]:
    """Import a task's backend and resolve its configuration; `fitted` completes it."""
    backend: Any = importlib.import_module(f"cellsparse_{task.backend}.backend")
    settings = asked(task)
    config = importlib.import_module(f"cellsparse_{task.backend}.config").resolve(settings, items)
    if task.config:
        values = {**json.loads(config.to_json()), **task.config}
        config = type(config).from_json(json.dumps(values))
    if task.plan:
        values = json.loads(config.to_json())
        config = type(config).from_json(json.dumps({**values, "plan": {**values["plan"], **task.plan}}))
    return backend, config


def train(task: Task, report: Callable[[loop.Progress], None] = lambda _: None) -> tuple[Any, Model]:
    """Train as a run does, with validations, checkpoints, the best weights and tuned thresholds.

    Returns:
        The configuration and the model.
    """
    found = pictures(Path(task.data), "train", task.train_images, whole=task.whole)
    choosing = pictures(Path(task.data), "val", task.val_images, whole=True) if task.whole else None
    return fit(task, found, choosing, report)


def fit(
    task: Task,
    found: Sequence[Picture],
    choosing: Sequence[Picture] | None = None,
    report: Callable[[loop.Progress], None] = lambda _: None,
) -> tuple[Any, Model]:
    """Train on pictures as `train` does.

    Args:
        task: How to train, and which of the pictures' labels are kept; with `DENSE` all, also where they are sparse.
        found: What to train on.
        choosing: What chooses the best checkpoint and the thresholds; None: the pictures themselves.
        report: Called with the progress.
    """
    backend, config = configure(task, len(found))
    items = samples(found, config.plan, k=task.k, background=task.background)
    config = fitted(config, task, items)
    validation = items
    if choosing is not None:
        validation = samples(choosing, config.plan, k=task.k, background=task.background)
    training = backend.create(config, augmented(items, config.plan), "cpu")
    with tempfile.TemporaryDirectory(prefix="cellsparse-bench-") as folder:
        store = FolderStore(Path(folder) / "store")
        checkpoints = Checkpoints(store, "bench", Path(folder) / "checkpoints")
        setup = loop.Setup(
            training=training,
            plan=config.plan,
            items=len(items),
            validation=windows(validation, config.plan),
            checkpoints=checkpoints,
        )
        loop.run(setup, report, lambda: False)
    model = training.model()
    loop.tune(model, config.plan, validation, items)
    return config, model


def count(model: Model, plan: Plan, found: Sequence[Picture], ious: Sequence[float]) -> list[Counts]:
    """Segment pictures and add up their counts at each IoU threshold."""
    total = [Counts(iou=iou) for iou in ious]
    for picture in found:
        image = as_fed(picture.image, plan, stack=False)
        counts = match_counts(picture.label, model.predict(image), ious)
        total = [a + b for a, b in zip(total, counts, strict=True)]
    return total


def run_child(script: Path, task: Task, *, threads: int = 0, timeout: float = CHILD_SECONDS) -> dict[str, Any]:
    """Run `script --child` with a task and return the JSON object on the last line of its standard output.

    Args:
        script: A benchmark that calls `read_task` with the argument `--child`.
        task: What to train.
        threads: Threads of the numerical libraries; 0 for their defaults.
        timeout: Seconds until the child is killed.

    Raises:
        RuntimeError: The child failed; the message has the end of its error output.
        subprocess.TimeoutExpired: The child took too long.
    """
    environment = dict(os.environ)
    if threads:
        names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "MKL_NUM_THREADS")
        environment.update(dict.fromkeys(names, str(threads)))
    done = subprocess.run(
        [sys.executable, str(script), "--child"],
        input=json.dumps(asdict(task)),
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{task} failed with exit code {done.returncode}: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def read_task() -> Task:
    """Return the task that `run_child` wrote."""
    return Task(**json.loads(sys.stdin.read()))


def commit() -> str:
    """Return which revision of the code is measured."""
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
