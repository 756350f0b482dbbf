"""What the orchestrator needs, and how that is looked at."""

import shutil
import threading
from collections import namedtuple

import pytest

from cellsparse_common.errors import StorageError, Unavailable
from cellsparse_common.storage import FolderStore
from cellsparse_orchestrator import readiness
from cellsparse_orchestrator.readiness import ReadinessWatch, disk_check, reconciler_check, store_check


def raising(error):
    def check():
        raise error

    return check


@pytest.mark.parametrize(
    ("checks", "problem"),
    [
        ([], ""),
        ([lambda: "", lambda: ""], ""),
        ([lambda: "", lambda: "b", lambda: "c"], "b"),
        ([raising(Unavailable("The database does not answer."))], "The database does not answer."),
        ([raising(ValueError("x"))], "A check of what is needed failed; the log has the details."),
    ],
)
def test_the_first_problem_is_told(checks, problem):
    assert ReadinessWatch(checks).look() == problem


def test_a_check_that_hangs_is_a_problem(monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def hang():
        begun.set()
        go_on.wait()
        return ""

    watch = ReadinessWatch([hang])
    watch.start()
    begun.wait()
    assert watch.problem == ""
    monkeypatch.setattr(readiness, "_HANGING_SECONDS", -1.0)
    assert "has not answered" in watch.problem
    go_on.set()
    watch.stop()


def test_a_full_disk_is_told_of_store_and_home(monkeypatch, tmp_path):
    store = FolderStore(tmp_path / "store")
    checks = [store_check(store), disk_check(tmp_path / "home")]
    assert [check() for check in checks] == ["", ""]
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 1))
    assert [check() for check in checks] == [
        "The disk of the store is full: less than 64 MiB are free.",
        "The disk of the home folder is full: less than 64 MiB are free.",
    ]
    store.expect()
    with pytest.raises(StorageError, match="is missing"):
        checks[0]()


class Loop(threading.Thread):
    def __init__(self, looked):
        super().__init__()
        self.looked = looked


def test_a_reconciler_that_has_ended_or_is_stuck_is_told(monkeypatch):
    loop = Loop(1000.0)
    check = reconciler_check(loop)
    assert check() == ""  # a standby's has not begun
    loop.start()
    loop.join()
    assert check() == "The reconciler of runs has ended; restart the orchestrator."
    monkeypatch.setattr(loop, "is_alive", lambda: True)
    monkeypatch.setattr(readiness.time, "monotonic", lambda: 1100.0)
    assert check() == ""
    monkeypatch.setattr(readiness.time, "monotonic", lambda: 1200.0)
    assert check() == "The reconciler has not looked at the runs for 200 s."
