"""Calls that wait for trainers which sleep: who goes on when, and what the others are told."""

import threading
from contextlib import contextmanager

import pytest
from support.limits import PATIENCE
from support.orchestrator import until

from cellsparse_common.errors import Busy, Cancelled, Starting
from cellsparse_orchestrator.launchers.wake_queue import Waiter, WakeQueue


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Call:
    """A call to a trainer; `queued` lets it be in the trainer's queue."""

    def __init__(self, *, queued=False):
        self.queued = threading.Event()
        if queued:
            self.queued.set()

    def initial_metadata(self):
        self.queued.wait(PATIENCE)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(clock):
    return WakeQueue("unet", 600.0, threading.Semaphore(4), clock)


@contextmanager
def waiting(queue, begun, number, call=None):
    """A call in a thread of its own; its number is added to `begun` when it goes on, its error if it may not."""
    waiter = Waiter(PATIENCE)

    def run():
        try:
            with queue.turn(waiter, lambda: True) as hand_over:
                begun.append(number)
                hand_over(call or Call(queued=True))
        except (Starting, Busy, Cancelled) as error:
            begun.append(error)

    before = queue.waiting
    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: queue.waiting == before + 1 or begun)
    yield waiter
    thread.join(PATIENCE)


def test_a_call_to_a_trainer_that_answers_does_not_wait(queue):
    queue.note(awake=True)
    with queue.turn(Waiter(1.0), lambda: True):
        assert queue.waiting == 0


def test_the_next_call_goes_on_once_a_trainer_has_queued_the_one_before(queue):
    begun, first, second = [], Call(), Call()
    with waiting(queue, begun, 1, first), waiting(queue, begun, 2, second):
        queue.note(awake=True)
        until(lambda: begun == [1])
        assert queue.waiting == 2
        first.queued.set()
        until(lambda: begun == [1, 2])
        second.queued.set()
    assert queue.waiting == 0


def test_a_trainer_that_has_gone_in_between_is_waited_for(queue):
    queue.note(awake=True)
    with pytest.raises(Starting, match="number 1 in line"), queue.turn(Waiter(0.01), lambda: False):
        raise AssertionError("it went on")


def test_the_wait_that_is_told_is_how_long_the_last_start_took(queue, clock):
    begun = []
    with waiting(queue, begun, 1):
        assert queue.state == (True, "asleep, and one is starting (about 60 s); calls that wait: 1")
        clock.now += 20
        assert "(about 40 s)" in queue.state.message
        clock.now += 70
        assert "(after 90 s; about 60 s are usual)" in queue.state.message
        queue.note(awake=True)
        until(lambda: begun)
        queue.note(awake=False)
    with waiting(queue, [], 2) as waiter:
        assert "(about 90 s)" in queue.state.message
        waiter.cancel()


def test_who_was_told_to_come_back_counts_for_a_while(queue, clock):
    with pytest.raises(Starting) as refused, queue.turn(Waiter(0.0), lambda: True):
        pass
    assert refused.value.retry_seconds == 30
    assert queue.waiting == 1
    clock.now += 61
    assert queue.waiting == 0
    assert queue.state == (False, "asleep: the first prediction starts one")


def test_what_keeps_a_trainer_from_starting_is_told(queue):
    queue.note(awake=False, problem="The image x cannot be pulled.")
    assert queue.state == (False, "asleep, and none can start: The image x cannot be pulled.")
    with (
        pytest.raises(Starting, match="none can start: The image x cannot be pulled"),
        queue.turn(Waiter(0.0), lambda: True),
    ):
        pass


def test_no_more_calls_wait_than_there_are_threads_for(queue):
    begun, waiters = [], []
    with waiting(queue, begun, 1) as one, waiting(queue, begun, 2) as two, waiting(queue, begun, 3) as three:
        waiters = [one, two, three]
        with waiting(queue, begun, 4) as four:
            with pytest.raises(Busy, match="as many calls as may wait"), queue.turn(Waiter(1.0), lambda: True):
                pass
            four.cancel()
        for waiter in waiters:
            waiter.cancel()
    assert all(isinstance(each, Cancelled) for each in begun)
