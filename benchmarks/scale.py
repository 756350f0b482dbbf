"""Measure the gain of a second process, with one thread each, and the cost of a slow link between two nodes.

Usage: PYTHONPATH=tests python benchmarks/scale.py [--backends NAME ...] [--steps N] [--links RATE ...] [--data FOLDER]
[--out FILE] (`make bench-scale`).

Every process trains with the crop and the batch of the preset PAPER. Step times are compared within one run: one
process, two separate ones and two that train together take turns, and the median of the turns counts.

- speedup_2_processes: crops per second of two processes that train one model, divided by those of a single process.
- speedup_2_apart: the same for two processes that train a model each. It is the limit that this machine's memory and
  caches allow.
- all_reduce_share: the share of a step in which two processes that train together wait for each other and for the
  link, 1 - (step of two apart) / (step of two together). Computation hides a part of the traffic.
- links: the same, by rate and by gradient format, for two processes in network namespaces whose link is limited to that
  rate with tc; null without namespaces.

Writes the part "backends" of out/bench/scale.json; the part "study" is that of `make bench-study`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nuclei import BACKENDS, DSB2018, ROOT
from support.two_nodes import missing, two_nodes

from cellsparse_trainer.processes import environment as process_environment
from cellsparse_trainer.processes.launch import Placement, here
from cellsparse_trainer.processes.spawn import environment

CHILD = Path(__file__).with_name("scale_child.py")
SECONDS = 900.0
STEPS = {"cellpose": 1, "stardist": 8, "unet": 8}
WARM = 1
TURNS = 3
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
LINKS = ("1gbit", "100mbit")
FORMATS = ("float32", "float16")
PORT = 29400


def run(
    backend: str, steps: int, data: Path, processes: Sequence[tuple[list[str], dict[str, str]]], *more: str
) -> float:
    """Run these processes at once; return their mean seconds per step."""
    base = {**os.environ, **dict.fromkeys(THREADS, "1"), "CUDA_VISIBLE_DEVICES": ""}
    process_environment.prepare(base)
    command = [sys.executable, str(CHILD), backend, "--warm", str(WARM), "--steps", str(steps), "--data", str(data)]
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        logs = [Path(folder) / str(number) for number in range(len(processes))]
        children = [
            subprocess.Popen(
                [*prefix, *command, *more],
                env={**base, **variables},
                stdout=log.with_suffix(".out").open("w"),
                stderr=log.with_suffix(".err").open("w"),
            )
            for (prefix, variables), log in zip(processes, logs, strict=True)
        ]
        try:
            _wait(children)
        finally:
            for child in children:
                child.kill()
                child.wait(10)
        for child, log in zip(children, logs, strict=True):
            if child.returncode:
                raise RuntimeError(f"a {backend} process failed: {log.with_suffix('.err').read_text()[-2000:]}")
        lines = [log.with_suffix(".out").read_text().splitlines()[-1] for log in logs]
    return statistics.mean(json.loads(line)["seconds"] for line in lines)


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all have ended or one has failed; raises TimeoutError."""
    end = time.monotonic() + SECONDS
    while any(child.poll() is None for child in children) and not any(child.returncode for child in children):
        if time.monotonic() > end:
            raise TimeoutError(f"processes took longer than {SECONDS:.0f} s")
        time.sleep(0.1)


def ranks(placement: Placement, *, local: bool) -> list[dict[str, str]]:
    """Return the variables of all processes of a placement: all on one node, or one on each node."""
    found = []
    for rank in range(placement.world):
        variables = environment(replace(placement, node=0 if local else rank), rank if local else 0)
        found.append({**variables, "MASTER_ADDR": placement.hosts[0], "MASTER_PORT": str(placement.port)})
    return found


def over_links(backend: str, steps: int, data: Path, rates: Sequence[str]) -> dict[str, Any] | None:
    """Return seconds per step by rate and format; None without namespaces."""
    reason = missing()
    if reason:
        print(f"no links are measured: {reason}")
        return None
    found: dict[str, Any] = {}
    for rate in rates:
        with two_nodes(rate) as nodes:
            placement = Placement(hosts=nodes.addresses, node=0, processes=1, port=PORT)
            processes = [(nodes.inside(n, []), variables) for n, variables in enumerate(ranks(placement, local=False))]
            found[rate] = {one: run(backend, steps, data, processes, "--gradients", one) for one in FORMATS}
    return found


def bench(backend: str, steps: int, data: Path, rates: Sequence[str]) -> dict[str, Any]:
    local = [([], variables) for variables in ranks(here(2), local=True)]
    turns = [
        [run(backend, steps, data, processes) for processes in ([([], {})], [([], {}), ([], {})], local)]
        for _ in range(TURNS)
    ]
    alone, apart, together = (statistics.median(seconds) for seconds in zip(*turns, strict=True))

    def figures(seconds: float) -> dict[str, float]:
        return {
            "seconds_per_step": round(seconds, 3),
            "speedup_2_processes": round(2 * alone / seconds, 3),
            "all_reduce_share": round(max(0.0, 1 - apart / seconds), 3),
        }

    links = over_links(backend, steps, data, rates)
    return {
        "seconds_per_step_alone": round(alone, 3),
        "speedup_2_apart": round(2 * alone / apart, 3),
        **figures(together),
        "links": links and {rate: {one: figures(s) for one, s in by.items()} for rate, by in links.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--steps", type=int, help="steps timed; default: by backend")
    parser.add_argument("--links", nargs="*", default=list(LINKS), help="rates as tc writes them")
    parser.add_argument("--data", type=Path, default=DSB2018)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "scale.json")
    options = parser.parse_args()
    report = json.loads(options.out.read_text()) if options.out.exists() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for backend in options.backends:
        found = bench(backend, options.steps or STEPS[backend], options.data, options.links)
        report.setdefault("backends", {})[backend] = found
        options.out.write_text(json.dumps(report, indent=1) + "\n")
        print(backend, json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
