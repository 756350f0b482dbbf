"""Work beside a loop: once at a time, again within a bound, given up with its reason."""

import threading
import time

from support.limits import PATIENCE

from cellsparse_common.errors import InvalidArgument, StorageError, Unavailable
from cellsparse_orchestrator.studies import executor as executor_module
from cellsparse_orchestrator.studies.executor import MOST_TRIES, RetryingExecutor

KEY = ("study-1", 1)


def until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
    return answer


def test_an_action_runs_once_at_a_time():
    go, done, ends = threading.Event(), [], []
    executor = RetryingExecutor("test", 2, lambda: ends.append(1))
    for _ in range(5):
        assert executor.submit(KEY, lambda: (go.wait(PATIENCE), done.append(1))) is None
    go.set()
    until(lambda: ends)
    assert done == [1]
    executor.stop()


def test_what_may_pass_is_tried_again_within_a_bound(monkeypatch):
    monkeypatch.setattr(executor_module, "LONGEST_PAUSE_SECONDS", 0.01)
    tries = []

    def away():
        tries.append(1)
        raise Unavailable("away.")

    executor = RetryingExecutor("test", 1, lambda: None, first_pause=0.001)
    error = until(lambda: executor.submit(KEY, away))
    assert (len(tries), error.message) == (MOST_TRIES, "away.")
    executor.stop()


def test_an_outage_of_the_store_is_outlasted(monkeypatch):
    monkeypatch.setattr(executor_module, "LONGEST_PAUSE_SECONDS", 0.001)
    tries = []

    def away():
        tries.append(1)
        if len(tries) <= 2 * MOST_TRIES:
            raise StorageError("Cannot reach it.")

    executor = RetryingExecutor("test", 1, lambda: None, first_pause=0.001)
    until(lambda: executor.submit(KEY, away) is None and len(tries) > 2 * MOST_TRIES)
    executor.stop()


def test_what_cannot_pass_is_given_up_at_once():
    tries = []

    def refuse():
        tries.append(1)
        raise InvalidArgument("no.")

    executor = RetryingExecutor("test", 1, lambda: None)
    assert until(lambda: executor.submit(KEY, refuse)).message == "no."
    assert len(tries) == 1
    executor.stop()


def test_a_fault_of_ours_is_given_up_in_words():
    executor = RetryingExecutor("test", 1, lambda: None)
    assert "fault of ours" in until(lambda: executor.submit(KEY, lambda: 1 // 0)).message
    executor.submit(KEY, lambda: 1 // 0)
    until(lambda: executor._tries[KEY].error)
    executor.forget("study-1")
    assert not executor._tries
    executor.stop()
