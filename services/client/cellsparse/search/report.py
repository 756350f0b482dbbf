"""The report of a search: its trials as table and document, and the best of them."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellsparse.search.folder import TRIALS, folder_of, load_plan
from cellsparse.search.plan import SearchPlan
from cellsparse.search.trial_store import TrialRow, TrialStore
from cellsparse.targets import file_errors, make_folder

STATES = ("complete", "pruned", "failed", "running")


@dataclass(frozen=True, kw_only=True)
class SearchReport:
    """A search's report."""

    complete: bool
    """Whether all trials have ended, so that the report changes only if trials are added."""
    document: dict[str, Any]
    """The plan, its trials, the best of them, counts and cost."""
    trials_csv: str
    """One line per trial, after a header line."""

    def write(self, folder: Path) -> list[Path]:
        """Write report.json and trials.csv into a folder; returns their paths.

        Raises:
            InvalidArgument: The folder cannot be written.
        """
        make_folder(folder)
        document, table = folder / "report.json", folder / "trials.csv"
        with file_errors(f"The report cannot be written to {folder}"):
            document.write_text(json.dumps(self.document, indent=1) + "\n", encoding="utf-8")
            table.write_text(self.trials_csv, encoding="utf-8")
        return [document, table]


def report(name: str) -> SearchReport:
    """Return the report of a search; of a running search, the results so far.

    Raises:
        NotFound: There is no such search.
        FailedPrecondition: Optuna is not installed.
    """
    plan = load_plan(name)
    return make_report(plan, TrialStore(plan, folder_of(name) / TRIALS).rows())


def make_report(plan: SearchPlan, rows: Sequence[TrialRow]) -> SearchReport:
    """Return the report of these trials."""
    counts = Counter(row.state for row in rows)
    trials = [row_document(row) for row in rows]
    best = find_best(rows)
    document = {
        "search": plan.plain(),
        "counts": {state: counts[state] for state in STATES},
        "training_seconds": sum(row.training_seconds for row in rows),
        "best": None if best is None else {"model_id": best.run_id, **row_document(best)},
        "trials": trials,
    }
    complete = len(rows) >= plan.trials and not counts["running"]
    return SearchReport(complete=complete, document=document, trials_csv=_table(plan, rows))


def find_best(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the trial with the largest value, the first of several; None if no trial has one."""
    scored = [row for row in rows if row.value is not None]
    return max(scored, key=lambda row: row.value or 0.0, default=None)


def row_document(row: TrialRow) -> dict[str, Any]:
    """Return a trial as values that JSON knows."""
    return {
        "number": row.number,
        "state": row.state,
        "value": row.value,
        "settings": dict(row.settings),
        "run_id": row.run_id,
        "trained_steps": row.steps,
        "training_seconds": row.training_seconds,
        "message": row.message,
        "validations": [{"step": step, "value": value} for step, value in sorted(row.validations.items())],
    }


def _table(plan: SearchPlan, rows: Sequence[TrialRow]) -> str:
    names = [axis.name for axis in plan.over]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "state", plan.metric, *names, "trained_steps", "training_seconds", "run_id", "message"])
    for row in rows:
        value = "" if row.value is None else row.value
        chosen = [row.settings.get(name, "") for name in names]
        seconds = f"{row.training_seconds:.3f}"
        writer.writerow([row.number, row.state, value, *chosen, row.steps, seconds, row.run_id, row.message])
    return text.getvalue()
