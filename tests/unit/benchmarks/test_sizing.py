"""The pure part of `make bench-sizing`."""

from datetime import UTC, datetime

import pytest
import sizing_database
import sizing_store
from sizing_table import gpu_memory, markdown

from cellsparse_orchestrator.db.tables import AttemptRow, EventRow, ModelRow, RunRow

REPORT = {
    "at_rest_mib": {"orchestrator": 120.4, "sparsifier": 90.0},
    "datasets": {"nuclei, 16 bit": {"image_mib": 1.5, "labels_mib": 0.02, "sparse_labels_mib": 0.01}},
    "backends": {
        "unet": {
            "preset": {"batch": 8, "crop": 96},
            "at_rest_mib": 300.0,
            "train_mib": 700.0,
            "predict_mib": {"1.05": 500.0, "4.19": 814.0},
            "store": {
                "checkpoint_mib": 20.0,
                "model_mib": 10.0,
                "events_kib": 512.0,
                "log_kib": 256.0,
                "other_kib": 256.0,
            },
        }
    },
    "database": {"kib": {"sqlite": {"empty": 400.0, "run": 2.04, "1000_events": 310.0}}},
}


def test_memory_of_a_gpu_is_what_its_check_has_written():
    speed = {"peak_memory_mib": 1500.4}
    backends = {"unet": {"gpu": {"as it comes": speed, "float32": {"peak_memory_mib": 9999}}}, "stardist": {"gpu": {}}}
    checked = {"device": "cuda", "quick": False, "machine": {"gpu": "NVIDIA A2"}, "backends": backends}
    assert "| U-Net | 1500 |" in markdown({**REPORT, "gpu": gpu_memory(checked)}).splitlines()
    assert gpu_memory({**checked, "device": "cpu"}) is None
    assert gpu_memory({**checked, "quick": True}) is None


@pytest.mark.parametrize(
    "row",
    [
        "| nuclei, 16 bit | 1.50 | 0.020 | 0.010 |",
        "| U-Net | 20.0 | 10.0 | 50.0 | 1024 KiB |",
        "| SQLite | 400 | 2.0 | 310 |",
        "| U-Net | 300 | 8 x 96 | 700 | 500 | 814 |",
        "| At rest | Orchestrator | Sparsifier |",
        "| MiB | 120 | 90 |",
    ],
)
def test_the_tables_have_a_row_for_each(row):
    assert row in markdown(REPORT).splitlines()


def test_the_bytes_of_a_run_are_told_apart(tmp_path):
    files = {
        "spec.json": 1024,
        "attempts/1/events.jsonl": 2048,
        "attempts/1/log.txt": 4096,
        "checkpoints/00000010/state": 2**20,
        "checkpoints/00000020/state": 2**21,
        "checkpoints/LATEST": 1024,
        "model/weights": 2**19,
    }
    for name, size in files.items():
        path = tmp_path / "runs" / "run-1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    (tmp_path / "runs" / "run-2").mkdir()
    (tmp_path / "runs" / "run-2" / "spec.json").write_bytes(b"another run's")
    found = sizing_store.run(tmp_path, "run-1")
    assert found == {
        "checkpoints": 2,
        "checkpoint_mib": 2.0,
        "model_mib": 0.5,
        "events_kib": 2.0,
        "log_kib": 4.0,
        "other_kib": 2.0,
    }


def test_a_run_and_its_events_take_room_in_a_database(tmp_path, monkeypatch):
    monkeypatch.setattr(sizing_database, "RUNS", 50)
    monkeypatch.setattr(sizing_database, "EVENTS", 500)
    now = datetime.now(UTC)
    run = {"number": 7, "id": "run-x", "request_id": None, "request_sha256": "", "name": "one", "backend": "unet"}
    run |= {"dataset_id": "ds-1", "settings": "{}" * 100, "max_attempts": 3, "state": "SUCCEEDED", "created_at": now}
    attempt = {"run_id": "run-x", "number": 1, "state": "SUCCEEDED", "created_at": now}
    model = {"number": 3, "id": "run-x", "name": "one", "backend": "unet", "dataset_id": "ds-1", "created_at": now}
    event = {"run_id": "run-x", "sequence": 1, "time": now, "state": "RUNNING", "training": bytes(100)}
    rows = {RunRow: [run], AttemptRow: [attempt], ModelRow: [model], EventRow: [event]}
    found = sizing_database.sizes(f"sqlite:///{tmp_path / 'copies.db'}", rows)
    assert 0.3 < found["run"] < 10
    assert 100 < found["1000_events"] < 1000
