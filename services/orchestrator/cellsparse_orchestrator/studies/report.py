"""Build a study's report: pure functions of the study and its members."""

import csv
import io
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from cellsparse_orchestrator.run_states import reason_name
from cellsparse_orchestrator.studies import states
from cellsparse_orchestrator.studies.grid import varied
from cellsparse_proto.v1 import common_pb2, sparsifier_pb2, study_pb2

VERSION = 1
ALL = "all"
"""The k of label sets that keep all cells."""
_COUNTS = ("tp", "fp", "fn")
_SHARES = ("f1", "ap")
K = TypeVar("K", bound=Hashable)
Row = dict[str, Any]


def build(study: study_pb2.Study, members: Sequence[study_pb2.StudyMember]) -> Row:
    """Return the report as a JSON-serialisable dictionary.

    Args:
        study: The study.
        members: All its members in order.
    """
    rows = [_row(member) for member in members]
    scored = [row for row in rows if row["scores"]]
    return {
        "version": VERSION,
        "study": _about(study),
        "members": rows,
        "curves": _curves(scored, varied(study.grid)),
        "best": {
            "overall": _best(scored),
            "by_backend": {backend: _best(found) for backend, found in _groups(scored, lambda row: row["backend"])},
        },
        "cost": _cost(rows),
    }


def to_json(report: Row) -> bytes:
    """Return a report as JSON; equal reports give equal bytes."""
    return (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()


def to_csv(report: Row) -> bytes:
    """Return the members of a report as CSV: a header and one line per member."""
    names = sorted({name for row in report["members"] for name in row["settings"]})
    ious = sorted({entry["iou"] for row in report["members"] for entry in row["scores"]})
    plain = [name for name in _PLAIN if name != "message"]
    columns = [*plain, *names, *(f"{name}_{iou:.2f}" for iou in ious for name in (*_SHARES, *_COUNTS)), "message"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in report["members"]:
        scores = {f"{name}_{entry['iou']:.2f}": entry[name] for entry in row["scores"] for name in entry}
        line = {name: row[name] for name in _PLAIN} | row["settings"] | scores
        writer.writerow({name: value for name, value in line.items() if name in columns})
    return text.getvalue().encode()


_PLAIN = (
    "number",
    "backend",
    "mode",
    "background",
    "k",
    "seed",
    "state",
    "reason",
    "message",
    "training_seconds",
    "processes",
    "gpu_seconds",
    "peak_memory_mib",
    "device",
    "attempts",
    "step",
    "annotated_cells",
    "dataset_id",
    "model_id",
)


def _row(member: study_pb2.StudyMember) -> Row:
    sparse = bool(member.mode)
    mode = sparsifier_pb2.SelectionMode.Name(member.mode).removeprefix("SELECTION_MODE_").lower()
    background = sparsifier_pb2.BackgroundRule.Name(member.background).removeprefix("BACKGROUND_RULE_").lower()
    return {
        "number": member.number,
        "backend": member.backend,
        "mode": mode if sparse else "",
        "background": background if sparse else "",
        "k": (member.k or ALL) if sparse else "",
        "seed": member.seed,
        "settings": dict(sorted(member.settings.items())),
        "state": states.member_name(member.state).lower(),
        "reason": reason_name(member.reason).lower(),
        "message": member.message,
        "training_seconds": round(member.training_seconds, 3),
        "processes": member.processes,
        "gpu_seconds": round(member.training_seconds * member.processes, 3) if member.device == "cuda" else 0.0,
        "peak_memory_mib": round(member.peak_memory_mib, 1),
        "device": member.device,
        "attempts": member.attempts,
        "step": member.step,
        "annotated_cells": member.annotated_cells,
        "dataset_id": member.dataset_id,
        # Only a run that succeeded has a model and scores.
        "model_id": member.run_id if member.step or member.scores else "",
        "run_id": member.run_id,
        "scores": [_score(score) for score in member.scores],
    }


def _score(score: common_pb2.MatchingScore) -> Row:
    shares = {name: _finite(getattr(score, name)) for name in _SHARES}
    return {"iou": round(score.iou, 6), **shares, **{name: getattr(score, name) for name in _COUNTS}}


def _about(study: study_pb2.Study) -> Row:
    return {
        "id": study.id,
        "name": study.name,
        "dataset_id": study.dataset_id,
        "split": common_pb2.Split.Name(study.split).removeprefix("SPLIT_").lower(),
        "state": states.study_name(study.state).lower(),
        "message": study.message,
        "created_at": study.created_at.ToJsonString(),
        "settings": {axis.name: list(axis.values) for axis in study.grid.settings},
        "seeds": list(study.grid.seeds),
        "members": study.members,
        "succeeded": study.succeeded,
        "failed": study.failed,
        "cancelled": study.cancelled,
    }


def _curves(scored: Iterable[Row], names: Sequence[str]) -> list[Row]:
    """Return means over seeds: one entry per backend, label set and combination of varied settings."""

    def key(row: Row) -> tuple[Any, ...]:
        return (
            row["backend"],
            row["mode"],
            row["background"],
            row["k"],
            tuple((name, row["settings"][name]) for name in names if name in row["settings"]),
        )

    curves = []
    for (backend, mode, background, k, settings), rows in _groups(scored, key):
        per_iou = zip(*(row["scores"] for row in rows), strict=True)
        curves.append(
            {
                "backend": backend,
                "mode": mode,
                "background": background,
                "k": k,
                "settings": dict(settings),
                "seeds": len(rows),
                "annotated_cells": rows[0]["annotated_cells"],
                "scores": [_mean(entries) for entries in per_iou],
            }
        )
    return curves


def _mean(entries: Sequence[Row]) -> Row:
    """Return the mean scores of several members at one threshold, and the range of F1."""
    means = {name: statistics.fmean(entry[name] for entry in entries) for name in (*_SHARES, *_COUNTS)}
    f1 = [entry["f1"] for entry in entries]
    return {"iou": entries[0]["iou"], **means, "f1_least": min(f1), "f1_most": max(f1)}


def _best(scored: Sequence[Row]) -> Row | None:
    """Return the member with the best F1 at the lowest threshold; on a tie, the one with fewer labelled cells."""
    if not scored:
        return None
    row = max(scored, key=lambda row: (row["scores"][0]["f1"], -row["annotated_cells"], -row["number"]))
    return {
        **{
            name: row[name] for name in ("number", "model_id", "backend", "mode", "background", "k", "seed", "settings")
        },
        "annotated_cells": row["annotated_cells"],
        "iou": row["scores"][0]["iou"],
        "f1": row["scores"][0]["f1"],
        "ap": row["scores"][0]["ap"],
    }


def _cost(rows: Sequence[Row]) -> Row:
    """Return the cost: GPU-seconds, training seconds by device and backend, labelled cells by label set."""
    trained = [row for row in rows if row["training_seconds"]]
    label_sets = {row["dataset_id"]: row["annotated_cells"] for row in rows if row["annotated_cells"]}
    return {
        "gpu_seconds": _seconds(trained, "gpu_seconds"),
        "training_seconds": _seconds(trained),
        "training_seconds_by_device": {
            device or "unknown": _seconds(found) for device, found in _groups(trained, lambda row: row["device"])
        },
        "training_seconds_by_backend": {
            backend: _seconds(found) for backend, found in _groups(trained, lambda row: row["backend"])
        },
        "label_sets": len({row["dataset_id"] for row in rows}),
        # Nested selections count the same cells several times. A person has to label only the largest selection.
        "annotated_cells_by_label_set": dict(sorted(label_sets.items())),
        "annotated_cells_of_largest_label_set": max(label_sets.values(), default=0),
    }


def _seconds(rows: Iterable[Row], name: str = "training_seconds") -> float:
    return round(math.fsum(row[name] for row in rows), 3)


def _groups(rows: Iterable[Row], key: Callable[[Row], K]) -> list[tuple[K, list[Row]]]:
    """Group rows by key, in the order of each group's first row."""
    groups: defaultdict[K, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return list(groups.items())


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
