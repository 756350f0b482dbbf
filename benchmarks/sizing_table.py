"""The tables of docs/operations/sizing.md, from the report of `sizing.py`."""

from collections.abc import Sequence
from typing import Any

NAMES = {"cellpose": "Cellpose", "stardist": "StarDist", "unet": "U-Net"}
PLAIN = "as it comes"
"""What `gpu_check.py` calls the settings of `fast`."""
DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def markdown(report: dict[str, Any]) -> str:
    """Return all tables, each after an empty line."""
    parts = (_datasets(report), _runs(report), _database(report), _memory(report), _rest(report), _gpu(report))
    return "\n\n".join(part for part in parts if part)


def gpu_memory(checked: dict[str, Any]) -> dict[str, Any] | None:
    """Return the peak memory by backend that `make gpu-check` has found on a GPU; None if it ran on a CPU.

    Args:
        checked: What that command has written: out/gpu-check.json.
    """
    if checked["device"] != "cuda" or checked["quick"]:
        return None
    peaks = {
        backend: found["gpu"].get(PLAIN, {}).get("peak_memory_mib") for backend, found in checked["backends"].items()
    }
    return {
        "gpu": checked["machine"]["gpu"],
        "peak_mib": {name: peak for name, peak in peaks.items() if peak is not None},
    }


def _datasets(report: dict[str, Any]) -> str:
    rows = [
        (name, f"{one['image_mib']:.2f}", f"{one['labels_mib']:.3f}", f"{one['sparse_labels_mib']:.3f}")
        for name, one in report["datasets"].items()
    ]
    return _table(("MiB per million pixels", "Image", "All labels", "Four darkest and four brightest cells"), rows)


def _runs(report: dict[str, Any]) -> str:
    rows = []
    for backend, found in report["backends"].items():
        store = found["store"]
        records = store["events_kib"] + store["log_kib"] + store["other_kib"]
        each, model = store["checkpoint_mib"], store["model_mib"]
        rows.append((NAMES[backend], f"{each:.1f}", f"{model:.1f}", f"{2 * each + model:.1f}", f"{records:.0f} KiB"))
    head = ("MiB per run", "One checkpoint", "Model", "Two checkpoints and the model", "Events, log, specification")
    return _table(head, rows)


def _database(report: dict[str, Any]) -> str:
    rows = [
        (DATABASES[name], f"{one['empty']:.0f}", f"{one['run']:.1f}", f"{one['1000_events']:.0f}")
        for name, one in report["database"]["kib"].items()
    ]
    return _table(("KiB", "Without runs", "Each run", "1,000 events"), rows)


def _memory(report: dict[str, Any]) -> str:
    rows = [
        (
            NAMES[backend],
            f"{found['at_rest_mib']:.0f}",
            f"{found['preset']['batch']} x {found['preset']['crop']}",
            f"{found['train_mib']:.0f}",
            *(f"{mib:.0f}" for mib in found["predict_mib"].values()),
        )
        for backend, found in report["backends"].items()
    ]
    sizes = next(iter(report["backends"].values()))["predict_mib"]
    head = (
        "MiB",
        "At rest",
        "Batch x crop of `fast`",
        "Training",
        *(f"{size} million pixels" for size in sizes),
    )
    return _table(head, rows)


def _rest(report: dict[str, Any]) -> str:
    rest = report["at_rest_mib"]
    head = ("At rest", *(NAMES.get(name, name.capitalize()) for name in rest))
    return _table(head, [("MiB", *(f"{mib:.0f}" for mib in rest.values()))])


def _gpu(report: dict[str, Any]) -> str:
    found = report.get("gpu")
    if not found:
        return ""
    rows = [(NAMES[backend], f"{peak:.0f}") for backend, peak in found["peak_mib"].items()]
    return _table(("MiB of the GPU", f"Training and prediction on {found['gpu']}"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
