"""Train every backend on a GPU, compare with the CPU, and measure; write out/gpu-check.json.

Usage: python benchmarks/gpu_check.py [--device cuda|cpu] [--only BACKEND ...] [--quick] [--out FILE]

It takes at most 8 minutes; what does not fit is left out, and the file says so. The images are the nuclei that ship
with StarDist, so nothing is needed but the project's packages. Per backend it

1. takes the same steps from the same weights on the CPU and on the GPU in float32, and compares the losses;
2. trains with the preset FAST, as it comes, on the GPU, and scores a tile that no training saw;
3. measures steps per second, peak memory and predicted images per second on both devices, and on the GPU in float32
   and with each switch that the backend has, too; the first losses with a switch must be those without it.

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
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuclei import BACKENDS, ROOT, commit

from cellsparse_common.files import replace_file
from cellsparse_trainer.contract import find_backend

SECONDS = 8 * 60
"""Longest time of the whole check."""
COMPARED_STEPS = 5
LOSS_TOLERANCE = 0.02
"""Largest relative difference of a loss in the first steps: a GPU may multiply in TF32, and steps magnify rounding."""
FEWEST_F1 = 0.6
"""F1 at IoU 0.5 that FAST must reach on the unseen tile; the CPU reaches 0.8 and more."""
SWITCH_TOLERANCE = 0.05
"""Largest relative difference of a first loss with a switch from that without; both may compute in bfloat16."""
ANSWER = "answer: "
"""What a line begins with that a child prints its answer on."""
PLAIN, FLOAT32 = "as it comes", {"precision": "PRECISION_FLOAT32"}


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
    sizes = QUICK if given.quick else Sizes()
    for part in (check, time_variants):  # switches come last: they are what may be left out
        for backend in given.only:
            found = report["backends"].setdefault(backend, {"left out": []})
            part(found, backend, given.device, sizes, end)
            replace_file(given.out, json.dumps(report, indent=1) + "\n")
    report["failures"] = failures(report)
    replace_file(given.out, json.dumps(report, indent=1) + "\n")
    print(table(report))
    for failure in report["failures"]:
        print(failure, file=sys.stderr)
    print(f"Written: {given.out}")
    return 1 if report["failures"] else 0


def check(found: dict[str, Any], backend: str, device: str, sizes: Sizes, end: float) -> None:
    """Add what the children of one backend find; "left out" names what had no time."""

    def ask(name: str, **task: Any) -> Any:
        left = end - time.monotonic()
        if left < 1:
            found["left out"].append(name)
            return None
        print(f"{backend}: {name}", flush=True)
        answers = run_child({"backend": backend, **task}, left)
        return answers[-1]

    found["losses"] = {
        side: ask(f"{COMPARED_STEPS} steps on {where}", what="losses", device=where, settings=FLOAT32)
        for side, where in (("cpu", "cpu"), ("gpu", device))
    }
    found["trained"] = ask("training", what="train", device=device, steps=sizes.train_steps, settings={})
    steps, predictions = max(2, sizes.timed_steps // 6), max(2, sizes.predictions // 8)
    few = {"what": "time", "steps": steps, "predictions": predictions, "variants": {"CPU": {}}}
    found["cpu"] = ask("speed on the CPU", device="cpu", settings={}, **few)


def time_variants(found: dict[str, Any], backend: str, device: str, sizes: Sizes, end: float) -> None:
    """Add the speed on the GPU of each variant, all of them in one child, as "gpu"."""
    asked, found["gpu"] = variants(backend), {}
    task = {"what": "time", "steps": sizes.timed_steps, "predictions": sizes.predictions, "variants": asked}
    if (left := end - time.monotonic()) > 1:
        print(f"{backend}: speed, {', '.join(asked)}", flush=True)
        for answer in run_child({"backend": backend, "device": device, "settings": {}, **task}, left):
            missing = next(name for name in asked if name not in found["gpu"])
            found["gpu"][answer.get("variant", missing)] = answer
    found["left out"] += [f"speed, {name}" for name in asked if name not in found["gpu"]]


def variants(backend: str) -> dict[str, dict[str, Any]]:
    """Return the settings that are timed on the GPU, by name; what takes longest to prepare is the last one."""
    switches = find_backend(f"cellsparse_{backend}").light().Config.SWITCHES
    switches = sorted(switches, key=lambda name: name == "compile_step")
    return {PLAIN: {}, "float32": FLOAT32} | {name: {name: True} for name in switches}


def run_child(task: dict[str, Any], seconds: float) -> list[dict[str, Any]]:
    """Do one task in a process of its own, which then holds one framework on one device.

    Returns:
        Its answers, from 1; {"error": ...} is the last one if it fails.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, str(Path(__file__).with_name("gpu_check_child.py"))]
        error = ""
        try:
            done = subprocess.run(
                command, input=json.dumps(task), stdout=out, stderr=log, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            error = f"It took longer than the {seconds:.0f} s that were left."
        else:
            log.seek(0)
            error = log.read().strip()[-1000:] or f"Exit code {done.returncode}." if done.returncode else ""
        out.seek(0)
        answers = [json.loads(line[len(ANSWER) :]) for line in out if line.startswith(ANSWER)]
    return [*answers, {"error": error}] if error else answers


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
        for name, off in switch_differences(found).items():
            if not off <= SWITCH_TOLERANCE:
                said.append(f"{backend}: losses with {name} differ by {off:.3g}; at most {SWITCH_TOLERANCE} is due.")
        f1 = (found["trained"] or {}).get("f1")
        if f1 is not None and f1 < FEWEST_F1 and not report["quick"]:
            said.append(f"{backend}: F1 {f1:.2f} on the unseen tile; at least {FEWEST_F1} is due.")
    return said


def loss_difference(found: dict[str, Any]) -> float | None:
    """Return the largest relative difference of the two devices' losses; None if one is missing."""
    cpu, gpu = ((found["losses"][side] or {}).get("losses") for side in ("cpu", "gpu"))
    return None if not cpu or not gpu else _difference(cpu, gpu)


def switch_differences(found: dict[str, Any]) -> dict[str, float]:
    """Return the largest relative difference of the first losses of each variant from those of the plain one."""
    losses = {name: answer["losses"] for name, answer in found["gpu"].items() if "losses" in answer}
    plain = losses.pop(PLAIN, None)
    return {} if plain is None else {name: _difference(plain, other) for name, other in losses.items()}


def _difference(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) / max(abs(a), 1e-9) for a, b in zip(one, other, strict=True))


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
            shown = extra if name == PLAIN else ("", "")
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
