"""Run the real orchestrator with simulated nodes and trainers, to find how much it can manage and where it breaks.

Usage: PYTHONPATH=tests python benchmarks/simulate.py [--full] [--nodes 5,10,25] [--runs N] [--plots FOLDER] ...
(`make bench-simulate`; FULL=1 for 10,000 runs on 500 nodes, `--help` for all options). Writes out/bench/simulate.json.

Three processes take part. The orchestrator is the real one, except that its launcher simulates nodes and pods. A second
process is the gRPC server of all trainers, in which only time passes. This process submits the runs: for each number of
nodes all at once, while nodes fail and pods are evicted. It fails if a run was lost or trained twice.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from simulation.scenario import Scenario
from simulation.session import ROOT, measure_requests, measure_rest, simulate
from support.interrupts import sigterm_interrupts
from support.postgres import Postgres

REAL_RUN_SECONDS = 3600.0
"""How long a real training takes that a simulated one stands for."""
NODES, FULL_NODES = (5, 10, 20, 40), (10, 50, 100, 250, 500)
RUN_SECONDS, FULL_RUN_SECONDS = 15.0, 30.0
FULL_RUNS = 10_000
AT_REST: dict[str, Any] = {"start_seconds": 86_400.0, "node_mtbf_seconds": 0.0}
TRAINING: dict[str, Any] = {"run_seconds": 3600.0, "node_mtbf_seconds": 0.0, "event_seconds": 1.0}
REST_SECONDS = 30.0
POSTGRESQL = "postgresql"


def main() -> None:
    arguments = _arguments()
    sigterm_interrupts()
    if arguments.rest:
        with tempfile.TemporaryDirectory() as folder:
            scenario = replace(_scenario(arguments, arguments.rest, last=False), gpus=1, runs=arguments.rest, **AT_REST)
            print(json.dumps(measure_rest(scenario, Path(folder), seconds=REST_SECONDS), indent=1))
        return
    if arguments.requests:
        scenario = _scenario(arguments, arguments.nodes[0], last=False)
        scenario = replace(scenario, runs=scenario.slots, eviction_share=0.0, **TRAINING)
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder, _database(arguments.database) as url:
            found = measure_requests(
                scenario, Path(folder), database=url, requests=arguments.requests, batch=arguments.batch
            )
        print(json.dumps({**found, "load_before": round(load, 1)}, indent=1))
        return
    points: list[dict[str, Any]] = []
    for nodes in arguments.nodes:
        scenario = _scenario(arguments, nodes, last=nodes == arguments.nodes[-1])
        print(f"{scenario.runs} runs on {nodes} nodes", file=sys.stderr, flush=True)
        load = os.getloadavg()[0]  # the load by other programs, before the simulation adds to it
        with tempfile.TemporaryDirectory() as folder, _database(arguments.database) as url:
            point = simulate(scenario, Path(folder), database=url, seconds=arguments.seconds)
        points.append({**point, "load_before": round(load, 1)})
        print(json.dumps(points[-1]), file=sys.stderr, flush=True)
        _write(arguments, points)
    if arguments.plots:
        from simulation.plots import write_plots  # slow to import, and rarely needed

        write_plots(json.loads(arguments.out.read_text()), arguments.plots)
    wrong = [
        point for point in points if point["lost"] or point["trained_twice"] or point["succeeded_without_training"]
    ]
    if wrong:
        sys.exit(f"Runs were lost or trained twice with {', '.join(str(point['nodes']) for point in wrong)} nodes.")


@contextmanager
def _database(asked: str) -> Iterator[str]:
    """Give the URL of an empty database; empty for an SQLite file."""
    if asked != POSTGRESQL:
        yield asked
        return
    with Postgres() as server:
        yield server.create_database()


def _write(arguments: argparse.Namespace, points: list[dict[str, Any]]) -> None:
    document = {
        "cores": os.cpu_count(),
        "database": "postgresql" if arguments.database else "sqlite",
        "run_seconds": arguments.run_seconds,
        "event_seconds": arguments.event_seconds,
        "compression": REAL_RUN_SECONDS / arguments.run_seconds,
        "points": points,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.out}")


def _scenario(arguments: argparse.Namespace, nodes: int, *, last: bool) -> Scenario:
    slots = nodes * arguments.gpus
    return Scenario(
        nodes=nodes,
        gpus=arguments.gpus,
        runs=arguments.runs if arguments.runs and last else slots * arguments.waves,
        run_seconds=arguments.run_seconds,
        start_seconds=arguments.start_seconds,
        event_seconds=arguments.event_seconds,
        node_mtbf_seconds=arguments.node_mtbf,
        repair_seconds=arguments.run_seconds / 2,
        eviction_share=arguments.evictions,
        compression=REAL_RUN_SECONDS / arguments.run_seconds,
        seed=arguments.seed,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="up to 500 nodes, the last with 10,000 runs")
    parser.add_argument("--nodes", type=_numbers, default=None, help="numbers of nodes, separated by commas")
    parser.add_argument("--gpus", type=int, default=2, help="GPUs of each node")
    parser.add_argument("--runs", type=int, default=0, help="runs with the last number of nodes; 0: as with the others")
    parser.add_argument("--waves", type=int, default=2, help="runs per GPU")
    parser.add_argument("--run-seconds", type=float, default=0.0, help="mean time of a training")
    parser.add_argument("--event-seconds", type=float, default=5.0, help="between two events of a trainer")
    parser.add_argument("--start-seconds", type=float, default=1.0, help="start of a pod")
    parser.add_argument(
        "--node-mtbf", type=float, default=1500.0, help="mean seconds between failures of a node; 0 for none"
    )
    parser.add_argument("--evictions", type=float, default=0.02, help="share of the pods that are evicted")
    parser.add_argument(
        "--rest", type=int, default=0, help="measure only the cost of this many runs that wait for pods"
    )
    parser.add_argument(
        "--requests", type=int, default=0, help="measure only how fast this many runs are queued while all GPUs train"
    )
    parser.add_argument("--batch", type=int, default=1, help="runs that each call asks for, with --requests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1800.0, help="longest time of one simulation")
    parser.add_argument(
        "--database",
        default="",
        help=f"{POSTGRESQL}: a server of this benchmark's own; or the SQLAlchemy URL of an empty database; else SQLite",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench" / "simulate.json")
    parser.add_argument("--plots", type=Path, default=None, help="folder for the curves as SVG")
    arguments = parser.parse_args()
    arguments.nodes = arguments.nodes or (FULL_NODES if arguments.full else NODES)
    arguments.run_seconds = arguments.run_seconds or (FULL_RUN_SECONDS if arguments.full else RUN_SECONDS)
    arguments.runs = arguments.runs or (FULL_RUNS if arguments.full else 0)
    if arguments.database not in ("", POSTGRESQL) and len(arguments.nodes) > 1:
        parser.error("the URL of a database takes one number of --nodes: every simulation needs an empty database")
    return arguments


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    main()
