"""What an installation takes: bytes in the store and in the database, and memory of each service.

Usage: PYTHONPATH=tests python benchmarks/sizing.py [--steps 20] [--backends NAME ...] [--out out/bench/sizing.json]
       python benchmarks/sizing.py --table FILE

A real orchestrator with its sparsifier and one trainer at a time, as `cellsparse up` starts them. Each backend trains
with the preset `fast` on the nuclei that ship with stardist, for fewer steps than the preset, and then segments the
same nuclei, once and four times side by side: 0.26 and 1.05 million pixels. The rows of these runs are copied into
empty databases. The result is a JSON file, and the tables of docs/operations/sizing.md.

Memory is that of a service with all its child processes, looked at twice per second, without a GPU. A GPU's is taken
from what `make gpu-check` has written on a machine that has one.
"""

import argparse
import importlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sizing_database
import sizing_memory
import sizing_store
import tifffile
from nuclei import BACKENDS, ROOT, Task, asked, commit
from sizing_table import gpu_memory, markdown
from support.interrupts import sigterm_interrupts
from support.orchestrator import Orchestrator, until

import cellsparse
from cellsparse.demo.source import demo_items, stardist_files
from cellsparse_common.files import replace_file
from cellsparse_common.storage import keys

CHECKPOINT_EVERY = 5
"""Steps; few, so that there are checkpoints before the last one."""
TIMES = ((1, 1), (2, 2))
"""Nuclei images in each direction of an image that is segmented: a quarter of a million pixels, and a million."""


def main() -> None:
    """Measure everything and write it."""
    sigterm_interrupts()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "sizing.json")
    parser.add_argument("--table", type=Path, help="print the tables of a file and do nothing else")
    parser.add_argument("--gpu-check", type=Path, default=ROOT / "out" / "gpu-check.json", help="of `make gpu-check`")
    given = parser.parse_args()
    if given.table:
        print(markdown(json.loads(given.table.read_text())))
        return
    report: dict[str, Any] = {"commit": commit(), "steps": given.steps}
    with tempfile.TemporaryDirectory(prefix="cellsparse-bench-") as name:
        folder = Path(name)
        home = folder / "home"
        with Orchestrator(home, CELLSPARSE_TRAINER_MODULES="") as orchestrator:
            orchestrator.healthy("sparsifier")
            report["at_rest_mib"] = sizing_memory.by_service(orchestrator.pid)
            with cellsparse.Client(orchestrator.address) as client:
                report["datasets"] = sizing_store.datasets(client, orchestrator.store, folder)
                dense = client.create_dataset("nuclei", demo_items(None))
                sparse = client.sparsify(dense.id, mode="minmax", k=4, background="shifted")
        report["backends"] = {
            backend: backend_figures(backend, home, sparse.id, given.steps) for backend in given.backends
        }
        report["database"] = sizing_database.measure(home / "cellsparse.db", folder)
    report["gpu"] = gpu_memory(json.loads(given.gpu_check.read_text())) if given.gpu_check.exists() else None
    if not report["gpu"]:
        print("Memory of a GPU was not measured: run `make gpu-check` on a machine that has one, then this again.")
    replace_file(given.out, json.dumps(report, indent=1) + "\n")
    print(markdown(report))
    print(f"written to {given.out}")


def backend_figures(backend: str, home: Path, dataset_id: str, steps: int) -> dict[str, Any]:
    """Train, and segment larger and larger images; return memory, and what the run takes in the store."""
    modules = f"{backend}=cellsparse_{backend}"
    began, image = time.monotonic(), tifffile.imread(stardist_files()[0])
    found: dict[str, Any] = {"preset": preset(backend), "predict_mib": {}}
    with Orchestrator(home, CELLSPARSE_TRAINER_MODULES=modules) as orchestrator:
        orchestrator.healthy(backend)
        found["at_rest_mib"] = sizing_memory.by_service(orchestrator.pid)[backend]
        with cellsparse.Client(orchestrator.address) as client:
            run = client.train(
                dataset_id, backend, seed=1, device="cpu", steps=steps, checkpoint_every_steps=CHECKPOINT_EVERY
            )
            with sizing_memory.peak(orchestrator.pid) as during:
                run.wait()
            found["train_mib"] = during[backend]
            print(f"{backend}: trained, {time.monotonic() - began:.0f} s", flush=True)
            log = orchestrator.store / keys.attempt_log(run.id, 1)
            until(log.exists)  # what the trainer stores last, after the run has ended
            found["store"] = sizing_store.run(orchestrator.store, run.id)
            client.predict(run.id, image)
            found["open_mib"] = sizing_memory.by_service(orchestrator.pid)[backend]
            for times in TIMES:
                large = np.tile(image, times)
                with sizing_memory.peak(orchestrator.pid) as during:
                    cells = client.predict(run.id, large).max()
                found["predict_mib"][f"{large.size / 1e6:.3g}"] = during[backend]
                found["orchestrator_mib"] = during["orchestrator"]
                print(f"{backend}: {cells} cells in {large.size} pixels, {time.monotonic() - began:.0f} s", flush=True)
    print(json.dumps(found), flush=True)
    return found


def preset(backend: str) -> dict[str, int]:
    """Return what of the preset `fast` decides how much memory a training of the demo's images takes."""
    task = Task(backend=backend, k=4, background="shifted")
    plan = importlib.import_module(f"cellsparse_{backend}.config").resolve(asked(task), 8).plan
    return {"batch": plan.batch_size, "crop": plan.crop_size}


if __name__ == "__main__":
    main()
