"""Time the trainers against the stock implementations, race FAST against PAPER, and measure memory.

Usage: python benchmarks/trainers.py [--quick] [--full] [--backends NAME ...] [--parts steps memory race]
       [--precision auto|float32] [--threads 2] [--data FOLDER] [--out FILE]

Writes {"backends": {NAME: {"step_ratio_to_stock", "fast_to_paper_time_ratio", "seconds_to_f1_0.70", "peak_memory_mib",
...}}} after every part, so that an interrupted benchmark keeps its results. A goal that was not reached has time null.

- step_ratio_to_stock: seconds per step over the stock implementation's, at PAPER's batch and crop; with _fast at
  FAST's. Both sides run in separate processes that take turns. With other work on the machine, the _cpu ratios are more
  reliable. Stock tools train in float32; ours in bfloat16 where the CPU has it, or with --precision float32 as they do.
- seconds_to_f1_0.70: training seconds of FAST, from the first 32 training images of DSB2018 of 256 x 256, the 4 darkest
  and 4 brightest cells labelled and a shifted background, to F1 0.70 at IoU 0.5 on the 31 validation images of that
  size. PAPER is stopped when it has trained 10 times as long as FAST, and the ratio is an upper bound then; with --full
  it trains on. It counts as 30 minutes if it has not reached the goal by then.
- memory_growth_mib_per_image: peak memory of the same short training on 320 items over that on 32, per item, with a
  cache of 8 MiB for images and labels. memory_growth_mib_per_image_cached has the trainers' own cache, limited to
  cache_bound_mib. The U-Net also caches prepared items, with its own limit (cellsparse_unet.data).
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from nuclei import BACKENDS, DSB2018, ROOT, commit, data_name
from trainer_figures import Message, allowance, growth, race_figures, seconds_to_goal, step_figures
from trainer_processes import Child

from cellsparse_trainer.data.samples import CACHE_BYTES

TURNS = {"fast": (5, 8), "paper": (4, 2)}
"""Turns of each side, and steps per turn."""
QUICK_TURNS = {"fast": (2, 2)}
PRECISION = {"auto": "PRECISION_AUTO", "float32": "PRECISION_FLOAT32"}
IMAGES = (32, 320)
SMALL_CACHE_MIB = 8
PAPER_SECONDS = 1800.0
QUIET_SECONDS = 3600.0
"""Longest wait for a message from a child."""


class Bench:
    """One run of the benchmark, with the report that it fills."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._data = [
            "--data",
            str(options.data),
            "--settings",
            json.dumps({"precision": PRECISION[options.precision]}),
        ]
        self._common = {"threads": options.threads, "logs": options.out.parent / "logs"}
        self.report: dict[str, Any] = {
            "data": data_name(options.data),
            "commit": commit(),
            "threads": options.threads,
            "precision": options.precision,
            "cache_bound_mib": CACHE_BYTES / 2**20,
            "backends": {name: {} for name in options.backends},
        }

    def write(self, backend: str, **figures: Any) -> None:
        self.report["backends"][backend] |= figures
        self._options.out.parent.mkdir(parents=True, exist_ok=True)
        self._options.out.write_text(json.dumps(self.report, indent=1) + "\n")
        shown = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
        print(
            f"{backend:9}",
            ", ".join(f"{name} {value}" for name, value in shown.items() if name != "curves"),
            flush=True,
        )

    def steps(self, backend: str, preset: str, turns: int, steps: int) -> None:
        said: dict[str, list[Message]] = {"ours": [], "stock": []}
        with (
            Child("ours", backend, preset, *self._data, **self._common) as ours,
            Child("stock", backend, preset, *self._data, **self._common) as stock,
        ):
            for turn in range(turns + 1):
                for side, child in (("ours", ours), ("stock", stock)):
                    child.ask(str(steps if turn else 1))
                    answer = child.answer(QUIET_SECONDS)
                    assert answer is not None
                    if turn:  # the first turn warms up
                        said[side].append(answer)
        figures = step_figures(said["ours"], said["stock"])
        suffix = "" if preset == "paper" else "_fast"
        named = {"step_ratio_to_stock": "ratio", "step_cpu_ratio_to_stock": "cpu_ratio"}
        named |= {"seconds_per_step": "seconds", "stock_seconds_per_step": "stock_seconds"}
        self.write(backend, **{name + suffix: figures[figure] for name, figure in named.items()})

    def race(self, backend: str) -> None:
        fast = self._curve(backend, "fast", PAPER_SECONDS)
        peak = max(one["peak_memory_mib"] for one in fast)
        figures = race_figures(fast, [], PAPER_SECONDS)
        self.write(backend, peak_memory_mib=peak, **figures, f1_at_the_end=fast[-1]["f1_all"], curves={"fast": fast})
        paper = self._curve(
            backend, "paper", allowance(seconds_to_goal(fast), PAPER_SECONDS, full=self._options.full), to_goal=True
        )
        self.write(backend, **race_figures(fast, paper, PAPER_SECONDS), curves={"fast": fast, "paper": paper})

    def _curve(self, backend: str, preset: str, most: float, *, to_goal: bool = False) -> list[Message]:
        """Return the evaluations of a training until its end, `most` training seconds or, with `to_goal`, the goal."""
        curve: list[Message] = []
        with Child("race", backend, preset, *self._data, **self._common) as child:
            while (said := child.answer(QUIET_SECONDS)) is not None:
                curve.append(said)
                if said["seconds"] >= most or (to_goal and seconds_to_goal(curve) is not None):
                    break
        return curve

    def memory(self, backend: str) -> None:
        figures: dict[str, float] = {}
        for suffix, cache in (("", ["--cache-mib", str(SMALL_CACHE_MIB)]), ("_cached", [])):
            said = []
            for images in IMAGES:
                more = [*self._data, "--images", str(images), *cache]
                with Child("memory", backend, "fast", *more, **self._common) as child:
                    answer = child.answer(QUIET_SECONDS)
                    assert answer is not None
                    said.append(answer)
                figures[f"peak_memory_mib_of_{images}_images{suffix}"] = answer["peak_memory_mib"]
            figures[f"memory_growth_mib_per_image{suffix}"] = growth(*said)
        self.write(backend, **figures)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DSB2018, help="holds train/ and val/ with images/ and masks/")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "trainers.json")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--parts", nargs="+", choices=("steps", "memory", "race"), default=("steps", "memory", "race"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=PRECISION, default="auto")
    parser.add_argument("--quick", action="store_true", help="a few steps of FAST only: does everything work?")
    parser.add_argument("--full", action="store_true", help="let PAPER train for 30 minutes")
    options = parser.parse_args()
    bench = Bench(options)
    there = (options.data / "train" / "images").is_dir()
    if not there:
        print(f"{options.data} is not there: no race to F1 0.70; the rest runs on {data_name(options.data)}.")
    began = time.monotonic()
    for backend in options.backends:
        empty = dict.fromkeys(("step_ratio_to_stock", "fast_to_paper_time_ratio", "seconds_to_f1_0.70"))
        bench.report["backends"][backend] |= empty | {"peak_memory_mib": None}
    turns = QUICK_TURNS if options.quick else TURNS
    for backend in options.backends:
        if "steps" in options.parts:
            for preset, (rounds, steps) in turns.items():
                bench.steps(backend, preset, rounds, steps)
        if "memory" in options.parts and not options.quick:
            bench.memory(backend)
    for backend in options.backends:
        if "race" in options.parts and there and not options.quick:
            bench.race(backend)
    print(f"{time.monotonic() - began:.0f} s -> {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
