"""Predicted images per second of Cellpose and StarDist over gRPC, beside the stock tools on the same file and threads.

Usage: PYTHONPATH=tests python benchmarks/predictions.py [--backends cellpose stardist] [--steps 200] [--rounds 3]
       [--threads 1] [--out out/bench/predictions.json]

Trains `fast` for a few steps on images of DSB2018, and exports the model in the stock tool's own format. Each round
predicts 16 images of 256 x 256 pixels, first with the stock tool in a process that holds it, then over gRPC. Stock
Cellpose gets the diameter and does one pass; ours does as many as the model's settings say. The ratio is that of the
best rounds. F1 compares ours with the stock tool's labels at IoU 0.5.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from nuclei import DSB2018, ROOT, commit, pictures
from support.interrupts import sigterm_interrupts
from support.server_process import ServerProcess

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.datasets import put_item, write_manifest
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.scoring.matching import match_counts
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2, trainer_pb2_grpc

IMAGES, TRAINED_ON = 16, 32
SECONDS = 1800.0
OPEN = {
    "cellpose": """
from cellpose.models import CellposeModel
model = CellposeModel(pretrained_model="cellpose_model")
diameter = float(model.diam_labels)
def segment(image):
    return model.eval(image, channels=[0, 0], diameter=diameter, normalize={"percentile": [1, 99.8]})[0]
""",
    "stardist": """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
from pathlib import Path
from csbdeep.utils import normalize
from stardist.models import StarDist2D
name = next(Path(".").glob("*/config.json")).parent.name
model = StarDist2D(None, name=name, basedir=".")
def segment(image):
    return model.predict_instances(normalize(image, 1, 99.8, clip=True))[0]
""",
}
CHILD = """
import json, sys, time, numpy as np
out, sys.stdout = sys.stdout, sys.stderr
images = np.load("images.npy")
exec(open("open.py").read())
segment(images[0])
for line in sys.stdin:
    began = time.perf_counter()
    labels = [segment(image) for image in images]
    seconds = time.perf_counter() - began
    np.save("labels.npy", np.stack(labels).astype(np.int32))
    print(json.dumps(seconds), file=out, flush=True)
"""


def main() -> None:
    """Measure each backend and write a JSON."""
    sigterm_interrupts()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", choices=OPEN, default=list(OPEN))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "float32"), default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "predictions.json")
    given = parser.parse_args()
    report: dict[str, Any] = {"commit": commit(), "precision": given.precision, "threads": given.threads}
    for backend in given.backends:
        report[backend] = measure(backend, given)
        print(backend, json.dumps(report[backend]), flush=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(report, indent=2) + "\n")


def measure(backend: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return images per second of both sides, their ratio, and how well their labels agree."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(given.threads))
    images = [one.image for one in pictures(Path(DSB2018), "val", IMAGES)]
    with tempfile.TemporaryDirectory(prefix="cellsparse-bench-") as name:
        folder = Path(name)
        (folder / "stock").mkdir()
        store = folder / "store"
        arguments = ["-m", f"cellsparse_{backend}"]
        service = {**threads, "CELLSPARSE_PRECISION": given.precision}
        with ServerProcess(arguments, store, folder, **service) as server, open_channel(server.address) as channel:
            stub = trainer_pb2_grpc.TrainerServiceStub(channel)
            train(stub, backend, store, given.steps)
            export(stub, folder / "stock")
            np.save(folder / "stock" / "images.npy", np.stack(images))
            (folder / "stock" / "open.py").write_text(OPEN[backend])
            ours, stock, labels = race(stub, folder / "stock", images, given.rounds, threads)
        theirs = np.load(folder / "stock" / "labels.npy")
    counts = [match_counts(one, two, [0.5])[0] for one, two in zip(theirs, labels, strict=True)]
    tp, wrong = sum(one.tp for one in counts), sum(one.fp + one.fn for one in counts)
    return {
        "images_per_second": round(IMAGES / min(ours), 2),
        "stock_images_per_second": round(IMAGES / min(stock), 2),
        "ratio_to_stock": round(min(stock) / min(ours), 2),
        "f1_between_them": round(2 * tp / max(1, 2 * tp + wrong), 4),
    }


def train(stub: Any, backend: str, store: Path, steps: int) -> None:
    """Train a model "bench" for some steps on densely labelled images.

    Raises:
        RuntimeError: The training failed.
    """
    objects = open_store(StoreSettings(store_url=f"file://{store}"))
    split = common_pb2.SPLIT_TRAIN
    items = [
        put_item(objects, name=one.name, split=split, image=one.image, label=one.label)
        for one in pictures(Path(DSB2018), "train", TRAINED_ON)
    ]
    dataset = dataset_pb2.Dataset(id="ds-bench", name="bench")
    write_manifest(objects, dataset_pb2.DatasetManifest(dataset=dataset, items=items))
    settings = trainer_pb2.TrainingSettings(steps=steps, device=trainer_pb2.DEVICE_CPU)
    getattr(settings, backend).SetInParent()
    asked = trainer_pb2.StartTrainingRequest(run_id="bench", attempt=1, dataset_id="ds-bench", settings=settings)
    stub.StartTraining(asked, timeout=SECONDS)
    watched = stub.WatchTraining(trainer_pb2.WatchTrainingRequest(run_id="bench", attempt=1), timeout=SECONDS)
    *_, last = (answer.event for answer in watched)
    if last.state != common_pb2.RUN_STATE_SUCCEEDED:
        raise RuntimeError(last.message)


def export(stub: Any, folder: Path) -> None:
    """Write the model for the stock tool into a folder."""
    asked = trainer_pb2.ExportRequest(model_id="bench", format=trainer_pb2.EXPORT_FORMAT_NATIVE)
    first, *rest = stub.Export(asked, timeout=SECONDS)
    path = folder / first.header.file_name
    path.write_bytes(b"".join(message.chunk for message in rest))
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)


def race(
    stub: Any, folder: Path, images: list[np.ndarray], rounds: int, threads: dict[str, str]
) -> tuple[list[float], list[float], list[np.ndarray]]:
    """Return the seconds of each round, ours and the stock tool's, and our labels."""
    sent = [trainer_pb2.PredictRequest(model_id="bench", image=encode_tiff(image)) for image in images]
    stub.Predict(sent[0], timeout=SECONDS)
    ours, stock = [], []
    command, pipes = [sys.executable, "-c", CHILD], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, env={**os.environ, **threads}, text=True, **pipes) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(rounds):
            child.stdin.write("\n")
            child.stdin.flush()
            stock.append(float(child.stdout.readline()))
            began = time.perf_counter()
            answers = [stub.Predict(one, timeout=SECONDS).label for one in sent]
            ours.append(time.perf_counter() - began)
        child.stdin.close()
    return ours, stock, [decode_image(one, max_pixels=2**24).array.astype(np.int32) for one in answers]


if __name__ == "__main__":
    main()
