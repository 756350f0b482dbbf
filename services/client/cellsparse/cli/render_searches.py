"""Tables and lines of searches for the terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cellsparse.cli.render import duration, new_table
from cellsparse.search import SearchPlan, SearchReport, TrialRow
from cellsparse.training_settings import setting_text

COLOURS = {"complete": "green", "pruned": "yellow", "failed": "red", "running": "cyan"}


def plan_table(plans: Iterable[SearchPlan]) -> Table:
    """Return one row per search."""
    shown = new_table("NAME", "DATASET", "BACKEND", "TRIALS", "METRIC", "OVER")
    for plan in plans:
        over = " ".join(f"{axis.name}={axis.text()}" for axis in plan.over)
        shown.add_row(plan.name, plan.dataset_id, plan.backend, str(plan.trials), plan.metric, over)
    return shown


def trial_line(plan: SearchPlan, row: TrialRow) -> str:
    """Return a trial that begins or has ended as one line."""
    parts = [f"{row.number:>3}", settings_text(row.settings)]
    if row.value is not None:
        parts.append(f"{plan.metric} {row.value:.3f} after {duration(row.training_seconds)}, model {row.run_id}")
    parts.append(row.message or {"running": "begins", "complete": ""}.get(row.state, row.state))
    return "  ".join(part for part in parts if part)


def report_view(report: SearchReport) -> RenderableType:
    """Return the trials and the best of them."""
    metric = report.document["search"]["metric"]
    shown = new_table("NO", "STATE", metric.upper(), "SETTINGS", "STEPS", "TIME", "RUN", "NOTE")
    for row in report.document["trials"]:
        shown.add_row(
            str(row["number"]),
            Text(row["state"], COLOURS[row["state"]]),
            "" if row["value"] is None else f"{row['value']:.3f}",
            settings_text(row["settings"]),
            str(row["trained_steps"] or ""),
            duration(row["training_seconds"]) if row["training_seconds"] else "",
            row["run_id"],
            row["message"],
        )
    best = report.document["best"]
    if best is None:
        return Group(shown, Text("no trial has a model"))
    said = f"best model {best['model_id']}: {metric} {best['value']:.3f} with {settings_text(best['settings'])}"
    return Group(shown, Text(said))


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings on one line, numbers short."""
    return ", ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={setting_text(value)}"
        for name, value in settings.items()
    )
