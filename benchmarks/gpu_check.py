"""Train every backend on a GPU, compare with the CPU, and measure; write out/gpu-check.json.

Usage: python benchmarks/gpu_check.py [--device cuda|cpu] [--only BACKEND ...] [--quick] [--out FILE]

It takes at most 8 minutes; what does not fit is left out, and the file says so. The images are the nuclei that ship
with StarDist, so nothing is needed but the project's packages. Per backend it

1. takes the same steps from the same weights on the CPU and on the GPU in float32, and compares the losses;
2. trains with the preset FAST, as it comes, on the GPU, and scores a tile that no training saw;
3. measures steps per second, peak memory and predicted images per second on both devices, and on the GPU with each of
   the `SWITCHES`.

It ends with code 1 if a comparison fails, or a GPU is asked for and missing. `--device cpu --quick` proves the script
itself on a machine without a GPU: both sides are then the CPU. `docs/benchmarks.md` takes its table from the file:
`python benchmarks/gpu_check.py --table FILE` prints it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuclei import BACKENDS, ROOT, commit

from cellsparse_common.files import replace_file

SECONDS = 8 * 60
"""Longest time of the whole check."""
COMPARED_STEPS = 5
LOSS_TOLERANCE = 0.02
"""Largest relative difference of a loss in the first steps: a GPU may multiply in TF32, and steps magnify rounding."""
FEWEST_F1 = 0.6
"""F1 at IoU 0.5 that FAST must reach on the unseen tile; the CPU reaches 0.8 and more."""
SWITCHES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "float32": {"precision": "PRECISION_FLOAT32"},
}
"""Settings that are timed on the GPU, each by itself."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is measured."""

    timed_steps: int = 60
    predictions: int = 32
    train_steps: int | None = None
    """None: the preset's."""


QUICK = Sizes(timed_steps=4, predictions=2, train_steps=6)


def main() -> int:
    """Do the check and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", choices=BACKENDS, nargs="+", default=list(BACKENDS))
    parser.add_argument("--quick", action="store_true", help="few steps: proves the script, measures nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "gpu-check.json")
    parser.add_argument("--table", type=Path, help="print the table of a file and do nothing else")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.table.read_text())))
        return 0
    end = time.monotonic() + SECONDS
    report: dict[str, Any] = {"machine": machine(), "device": given.device, "quick": given.quick, "backends": {}}
    for backend in given.only:
        report["backends"][backend] = check(backend, given.device, QUICK if given.quick else Sizes(), end)
        replace_file(given.out, json.dumps(report, indent=1) + "\n")
    report["failures"] = failures(report)
    replace_file(given.out, json.dumps(report, indent=1) + "\n")
    print(table(report))
    for failure in report["failures"]:
        print(failure, file=sys.stderr)
    print(f"Written: {given.out}")
    return 1 if report["failures"] else 0


def check(backend: str, device: str, sizes: Sizes, end: float) -> dict[str, Any]:
    """Return what the children of one backend found; "left out" names what had no time."""
    found: dict[str, Any] = {"left out": []}

    def ask(name: str, **task: Any) -> Any:
        left = end - time.monotonic()
        if left < 1:
            found["left out"].append(name)
            return None
        print(f"{backend}: {name}", flush=True)
        return run_child({"backend": backend, **task}, left)

    float32 = {"precision": "PRECISION_FLOAT32"}
    found["losses"] = {
        side: ask(f"{COMPARED_STEPS} steps on {where}", what="losses", device=where, settings=float32)
        for side, where in (("cpu", "cpu"), ("gpu", device))
    }
    found["trained"] = ask("training", what="train", device=device, steps=sizes.train_steps, settings={})
    timed = {"what": "time", "steps": sizes.timed_steps, "predictions": sizes.predictions}
    few = {**timed, "steps": max(2, sizes.timed_steps // 6), "predictions": max(2, sizes.predictions // 8)}
    found["cpu"] = ask("speed on the CPU", device="cpu", settings={}, **few)
    found["gpu"] = {
        name: ask(f"speed, {name}", device=device, settings=settings, **timed) for name, settings in SWITCHES.items()
    }
    return found


def run_child(task: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Do one task in a process of its own, which then holds one framework on one device; {"error": ...} if it fails."""
    try:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("gpu_check_child.py"))],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"It took longer than the {seconds:.0f} s that were left."}
    if done.returncode:
        return {"error": done.stderr.strip()[-1000:] or f"Exit code {done.returncode}."}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def failures(report: dict[str, Any]) -> list[str]:
    """Return a sentence for each comparison that failed and each task that ended with an error."""
    said = []
    for backend, found in report["backends"].items():
        if found["left out"]:
            said.append(f"{backend}: no time was left for {', '.join(found['left out'])}.")
        tasks = {**found["losses"], "training": found["trained"], "CPU": found["cpu"], **found["gpu"]}
        for name, answer in tasks.items():
            if answer and "error" in answer:
                said.append(f"{backend}, {name}: {answer['error']}")
        difference = loss_difference(found)
        if difference is not None and not difference <= LOSS_TOLERANCE:
            said.append(f"{backend}: losses differ by {difference:.3g} of the CPU's; at most {LOSS_TOLERANCE} is due.")
        f1 = (found["trained"] or {}).get("f1")
        if f1 is not None and f1 < FEWEST_F1 and not report["quick"]:
            said.append(f"{backend}: F1 {f1:.2f} on the unseen tile; at least {FEWEST_F1} is due.")
    return said


def loss_difference(found: dict[str, Any]) -> float | None:
    """Return the largest relative difference of the two devices' losses; None if one is missing."""
    cpu, gpu = ((found["losses"][side] or {}).get("losses") for side in ("cpu", "gpu"))
    if not cpu or not gpu:
        return None
    return max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(cpu, gpu, strict=True))


def table(report: dict[str, Any]) -> str:
    """Return the report as a table in Markdown."""
    names = ("Backend", "Settings", "Steps/s", "Predicted images/s", "Peak memory, MiB", "F1", "Loss difference")
    rows = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    for backend, found in report["backends"].items():
        difference, trained = loss_difference(found), found["trained"] or {}
        extra = (_number(trained.get("f1")), _number(difference))
        for name, speed in {"CPU": found["cpu"], **found["gpu"]}.items():
            speed = speed or {}
            numbers = [speed.get(key) for key in ("steps_per_second", "images_per_second", "peak_memory_mib")]
            shown = extra if name == "as it comes" else ("", "")
            rows.append("| " + " | ".join([backend, name, *map(_number, numbers), *shown]) + " |")
    return "\n".join(rows)


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        gpu = ""
    return {"gpu": gpu, "cores": os.cpu_count(), "python": platform.python_version(), "commit": commit()}


if __name__ == "__main__":
    sys.exit(main())
