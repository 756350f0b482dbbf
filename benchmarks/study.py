"""Run the paper's grid of 108 members with tiny budgets, and kill the orchestrator twice meanwhile.

Usage: python benchmarks/study.py [--out FOLDER] [--slots N] [--axes k=1,all backends=unet ...]

Starts its own orchestrator with the sparsifier and all trainers (one thread each), and kills it with SIGKILL when one
third and two thirds of the members have ended. Fails unless every member has scores, no run was made twice and the
report is in the store. Writes the report to out/bench/study and the part "study" of out/bench/scale.json. The models
are useless, because they train for two steps each.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cellsparse import Client
from cellsparse.errors import CellsparseError
from cellsparse.studies import FINAL, StudyHandle
from cellsparse_proto.v1 import study_pb2

SETTINGS = {
    "steps": ["2"],
    "batch_size": ["1"],
    "crop_size": ["32"],
    "patience": ["0"],
    "n_rays": ["8"],
    "unet_depth": ["1"],
    "unet_filters": ["4"],
    "features": ["4"],
    "base_channels": ["4"],
    "cellpose.channels": ["8,256"],
}
START_SECONDS = 300.0
MOST_SECONDS = 3 * 3600.0
POLL_SECONDS = 1.0


def items(size: int = 96) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Return one image of nine discs of different brightness per split."""
    ys, xs = np.mgrid[:size, :size]
    for seed, split in enumerate(("train", "val", "test")):
        rng = np.random.default_rng(seed)
        label = np.zeros((size, size), np.int32)
        for cell in range(9):
            y, x = size * (2 * (cell // 3) + 1) // 6, size * (2 * (cell % 3) + 1) // 6
            label[(ys - y) ** 2 + (xs - x) ** 2 < (size // 10) ** 2] = cell + 1
        image = np.where(label > 0, 80 + 15 * label, 20) + rng.integers(0, 15, label.shape)
        yield split, split, image.astype(np.uint8), label


@contextmanager
def orchestrator(home: Path, slots: int) -> Iterator[tuple[subprocess.Popen, Client]]:
    """Start an orchestrator, give it with a client, and shut it down at the end."""
    address_file = home / "address"
    address_file.unlink(missing_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")},
        "CELLSPARSE_HOME": str(home),
        "CELLSPARSE_PORT": "0",
        "CELLSPARSE_ADDRESS_FILE": str(address_file),
        "CELLSPARSE_SLOTS": str(slots),
        "CELLSPARSE_START_SECONDS": str(START_SECONDS),
        "CELLSPARSE_WARM_SECONDS": "300",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }
    process = None
    try:
        with (home / "orchestrator.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "cellsparse_orchestrator"], env=environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while not address_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the orchestrator did not start; its log: {home / 'orchestrator.log'}")
            time.sleep(0.05)
        with Client(address_file.read_text().strip()) as client:
            yield process, client
    finally:
        if process is not None:
            process.terminate()
            process.wait(120)


def ended(study: study_pb2.Study) -> int:
    return study.succeeded + study.failed + study.cancelled


def wait_for(client: Client, study_id: str, count: int, deadline: float) -> study_pb2.Study:
    """Wait until some number of members or the study has ended."""
    said = -1
    while time.monotonic() < deadline:
        try:
            study = client.study_info(study_id)
        except CellsparseError:
            time.sleep(POLL_SECONDS)  # a busy machine may answer late
            continue
        if ended(study) != said:
            said = ended(study)
            print(f"{time.strftime('%H:%M:%S')}  {study.message}", flush=True)
        if study.state in FINAL or (count < study.members and said >= count):
            return study
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"study {study_id} did not end in time")


def measure(home: Path, out: Path, slots: int, axes: dict[str, list[str]]) -> dict[str, object]:
    """Run the study and return its figures."""
    began = time.monotonic()
    deadline = began + MOST_SECONDS
    study_id = ""
    members = kills = 0
    while True:
        with orchestrator(home, slots) as (process, client):
            if not study_id:
                dataset = client.create_dataset("discs", items())
                begun = client.study(dataset.id, preset="paper", settings=SETTINGS, request_id="bench", **axes)
                study_id, members = begun.id, begun.info().members
            study = wait_for(client, study_id, members * (kills + 1) // 3 if kills < 2 else members, deadline)
            if kills < 2 and study.state not in FINAL:
                print(f"kill the orchestrator after {ended(study)} of {members} members", flush=True)
                process.send_signal(signal.SIGKILL)
                kills += 1
                continue
            seconds = time.monotonic() - began
            handle = StudyHandle(study_id, client.connection)
            check(client, handle, study, home)
            cost = handle.report().document["cost"]
            handle.report().write(out)
            return {
                "members": members,
                "completed": study.succeeded,
                "seconds": round(seconds, 1),
                "orchestrator_kills": kills,
                "slots": slots,
                "training_seconds": cost["training_seconds"],
                "label_sets": cost["label_sets"],
            }


def check(client: Client, handle: StudyHandle, study: study_pb2.Study, home: Path) -> None:
    """Fail unless every member has scores from its own run, and there are no other runs."""
    members = list(handle.members())
    for member in members:
        if not member.scores:
            print(f"member {member.number} ({member.backend}): {member.message}", file=sys.stderr)
    runs = [run.id for run in client.runs()]
    assert study.succeeded == study.members == len(members), study.message
    assert len(runs) == len(set(runs)) == len({member.run_id for member in members}) == len(members)
    assert set(runs) == {member.run_id for member in members}
    assert (home / "store" / "studies" / study.id / "report" / "report.json").exists()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--axes", nargs="*", default=[], metavar="NAME=A,B", help="smaller: k=1,all backends=unet")
    options = parser.parse_args()
    axes = {name: values.split(",") for name, _, values in (axis.partition("=") for axis in options.axes)}
    report = options.out / "study"
    shutil.rmtree(report, ignore_errors=True)
    report.mkdir(parents=True)
    home = Path(tempfile.mkdtemp(prefix="study-"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes started here end as well
    try:
        figures = measure(home, report, options.slots, axes)
    except BaseException:
        print(f"logs stay in {home}", file=sys.stderr)
        raise
    shutil.rmtree(home, ignore_errors=True)
    path = options.out / "scale.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, "study": figures}, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
