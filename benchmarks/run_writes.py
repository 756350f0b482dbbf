"""Processor time of what the orchestrator writes for a run: queued, begun, reported on, ended.

Usage: python benchmarks/run_writes.py [--runs 200] [--url sqlite:////...]

No trainer and no network take part. Processor times, unlike seconds, are comparable on a machine that others use too;
that of a PostgreSQL server is not counted.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait

from google.protobuf import json_format

from cellsparse_orchestrator import run_states
from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import DatasetRow
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.decisions import Action, AttemptOutcome, Decision
from cellsparse_orchestrator.runs.queries import Runs
from cellsparse_orchestrator.runs.rows import RunAttempt
from cellsparse_orchestrator.runs.transitions import AttemptEnd, RunTransitions
from cellsparse_proto.v1 import dataset_pb2, orchestrator_pb2, trainer_pb2

TOGETHER = 10
"""Attempts begun or ended in one transaction, as in a busy pass of the reconciler."""
EVENTS = 10
SECONDS = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--url", default="", help="of an empty database; else an SQLite file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = Database(arguments.url or f"sqlite:///{folder}/runs.db")
        database.try_lead()
        print(json.dumps(measure(database, arguments.runs), indent=1))
        database.close()


def measure(database: Database, count: int) -> dict[str, float]:
    """Return the processor time of each operation, milliseconds per run or event."""
    summary = json_format.MessageToJson(dataset_pb2.Dataset(id="ds-1", name="measured"))
    with database.write() as session:
        session.add(DatasetRow(id="ds-1", name="measured", summary=summary, created_at=now()))
    notifier = Notifier()
    runs, transitions = Runs(database, notifier), RunTransitions(database, notifier)
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), steps=100)
    request = orchestrator_pb2.CreateRunRequest(dataset_id="ds-1", settings=settings)
    ids = [f"run-{number}" for number in range(count)]
    groups = [ids[first : first + TOGETHER] for first in range(0, count, TOGETHER)]
    attempts: list[RunAttempt] = []
    last = trainer_pb2.TrainingEvent(sequence=10**6, state=run_states.SUCCEEDED, step=9, total_steps=9)
    outcome = AttemptOutcome(state=run_states.SUCCEEDED, event=last)
    decision = Decision(action=Action.END, state=run_states.SUCCEEDED)

    def store(sequence: int, together: int) -> None:
        for first in range(0, count, together):
            some = attempts[first : first + together]
            wait([transitions.store_event(attempt, _event(sequence)) for attempt in some], SECONDS)

    def end(group: Sequence[str]) -> None:
        ends = [AttemptEnd(run_id=run_id, number=1, outcome=outcome, decision=decision) for run_id in group]
        transitions.end_attempts(ends)

    return {
        "queue one": _cost(lambda: [runs.add(run_id, run_id, request) for run_id in ids], count),
        f"begin {TOGETHER} together": _cost(
            lambda: [attempts.extend(transitions.begin_attempts(group)) for group in groups], count
        ),
        "say why one waits": _cost(lambda: [transitions.set_waiting(one, "No room.") for one in attempts], count),
        "say whom one asks": _cost(lambda: [transitions.set_trainer(one, "127.0.0.1:1") for one in attempts], count),
        "event that comes alone": _cost(lambda: store(1, 1), count),
        "event of many at once": _cost(lambda: [store(2 + number, count) for number in range(EVENTS)], count * EVENTS),
        f"end {TOGETHER} together": _cost(lambda: [end(group) for group in groups], count),
    }


def _cost(work: Callable[[], object], count: int) -> float:
    began = time.process_time()
    work()
    return round(1000 * (time.process_time() - began) / count, 3)


def _event(sequence: int) -> trainer_pb2.TrainingEvent:
    losses = {"loss": 1.0, "nll": 0.5, "dice": 0.25}
    return trainer_pb2.TrainingEvent(
        sequence=sequence, state=run_states.RUNNING, step=sequence, total_steps=1000, losses=losses, device="cpu"
    )


if __name__ == "__main__":
    main()
