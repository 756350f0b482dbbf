"""Processor time of `import cellsparse` and of every command's --help, as ratios to `import numpy, grpc`.

All are started in turns in one run, so that a busy machine slows all of them alike. Time is what the system counts
for the child process, user and system together; the median of several runs is shown.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

BASE = "import numpy, grpc"
AIM = 2.0


def commands() -> list[list[str]]:
    """Every command and group of commands, as its words."""
    from typer.main import get_command

    from cellsparse.cli.app import build

    found: list[list[str]] = [[]]
    todo: list[tuple[list[str], object]] = [([], get_command(build()))]
    while todo:
        words, group = todo.pop(0)
        for name, command in getattr(group, "commands", {}).items():
            found.append([*words, name])
            todo.append(([*words, name], command))
    return found


def processor_seconds(arguments: list[str]) -> float:
    """Run Python with these arguments; return the seconds of processor time it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True, timeout=300)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each [5]")
    parser.add_argument("--out", type=Path, default=Path("out/bench/imports.json"), metavar="FILE")
    options = parser.parse_args()
    cases = {BASE: ["-c", BASE], "import cellsparse": ["-c", "import cellsparse"]}
    for words in commands():
        cases[" ".join(["cellsparse", *words, "--help"])] = ["-m", "cellsparse", *words, "--help"]
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(options.runs):
        for name, arguments in cases.items():
            seconds[name].append(processor_seconds(arguments))
    base = statistics.median(seconds[BASE])
    rows = {
        name: {"seconds": round(statistics.median(taken), 3), "ratio": round(statistics.median(taken) / base, 2)}
        for name, taken in seconds.items()
    }
    for name, row in rows.items():
        print(f"{row['seconds']:7.3f} s  {row['ratio']:5.2f}  {name}")
    most = max(row["ratio"] for row in rows.values())
    print(f"largest ratio {most:.2f}, aim at most {AIM:.2f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"aim": AIM, "runs": options.runs, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
