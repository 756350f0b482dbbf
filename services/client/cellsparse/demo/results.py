"""Results of the demo, as report.json and as a table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from cellsparse.cli import render
from cellsparse_proto.v1 import dataset_pb2, orchestrator_pb2, trainer_pb2

GOOD_F1 = 0.70


@dataclass(frozen=True, kw_only=True)
class Result:
    """One backend's run, from start to scores."""

    run: orchestrator_pb2.Run
    """The run, SUCCEEDED."""
    events: list[trainer_pb2.TrainingEvent]
    """All events of its trainer, in order."""
    report: trainer_pb2.EvaluationReport
    """Scores on the test tiles."""

    @property
    def seconds(self) -> float:
        """Seconds of training."""
        return self.run.ended_at.ToNanoseconds() / 1e9 - self.run.started_at.ToNanoseconds() / 1e9

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return max((event.step for event in self.events), default=0)

    @property
    def peak_memory_mib(self) -> float:
        """Largest resident memory of the training process, MiB."""
        return max((event.peak_memory_mib for event in self.events), default=0.0)

    @property
    def f1(self) -> float:
        """F1 at the smallest IoU threshold, 0.5."""
        return self.report.scores[0].f1


def write_report(path: Path, results: Sequence[Result], sparse: dataset_pb2.Dataset, total_seconds: float) -> None:
    """Write report.json."""
    document = {
        "total_seconds": round(total_seconds, 1),
        "runs": [
            {
                "backend": result.run.backend,
                "labels": render.labels_text(sparse),
                "labelled_cells": sparse.train_cells,
                "steps": result.steps,
                "seconds": round(result.seconds, 1),
                "peak_memory_mib": round(result.peak_memory_mib, 1),
                "scores": [
                    {
                        "iou": round(row.iou, 6),
                        "precision": row.precision,
                        "recall": row.recall,
                        "f1": row.f1,
                        "ap": row.ap,
                        "pq": row.pq,
                    }
                    for row in result.report.scores
                ],
            }
            for result in results
        ],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")


def table(results: Sequence[Result], sparse: dataset_pb2.Dataset) -> Table:
    """Return one row per backend."""
    shown = Table(title=f"Test tiles, trained from {sparse.train_cells} labelled cells ({render.labels_text(sparse)})")
    for name in ("backend", "steps", "training", "memory", "F1 @ 0.5", "AP @ 0.5", "PQ @ 0.5", "F1 @ 0.75"):
        shown.add_column(name, justify="left" if name == "backend" else "right")
    for result in results:
        first = result.report.scores[0]
        strict = next((row.f1 for row in result.report.scores if abs(row.iou - 0.75) < 1e-6), float("nan"))
        scores = (f"{value:.2f}" for value in (first.f1, first.ap, first.pq, strict))
        time, memory = render.duration(result.seconds), f"{result.peak_memory_mib:.0f} MiB"
        shown.add_row(result.run.backend, str(result.steps), time, memory, *scores)
    return shown
