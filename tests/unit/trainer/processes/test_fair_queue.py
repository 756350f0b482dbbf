"""Whose turn it is, who is refused, and that nobody starves."""

import heapq
import random
from collections import Counter

import pytest

from cellsparse_common.errors import Busy, Cancelled, Unavailable
from cellsparse_common.rpc.callers import Caller
from cellsparse_trainer.processes.fair_queue import LONGEST_RETRY, SHORTEST_RETRY, Entry, FairQueue


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def entry(owner="lab", member=None, **fields):
    return Entry(caller=Caller(owner, member or owner), work=None, **fields)


def join(queue, *entries, seconds=1000.0):
    for each in entries:
        queue.join(each, seconds)
    return list(entries)


def order(queue, most=1):
    found = []
    while queue.length:
        found.extend(queue.take(most, 0))
    return found


def test_owners_take_turns_and_each_is_served_in_order(clock):
    queue = FairQueue(10, 1, clock)
    many = join(queue, *(entry("many") for _ in range(4)))
    few = join(queue, *(entry("few") for _ in range(2)))
    assert order(queue) == [many[0], few[0], many[1], few[1], many[2], many[3]]


def test_an_owner_that_has_just_had_a_turn_waits_for_the_others(clock):
    queue = FairQueue(10, 1, clock)
    join(queue, entry("a"))
    order(queue)
    again, other = join(queue, entry("a"), entry("b"))
    assert order(queue) == [other, again]


def test_a_full_queue_says_the_position_and_when_to_come_back(clock):
    queue = FairQueue(2, 1, clock)
    queue.note(4.0, 1)
    join(queue, entry(member="a"), entry(member="b"))
    with pytest.raises(Busy, match=r"number 3 in line, and 2 may wait at once\. Try again in 4\.0 s") as caught:
        join(queue, entry(member="c"))
    assert caught.value.retry_seconds == 4.0
    with pytest.raises(Busy, match="number 4 in line") as caught:
        join(queue, entry(member="d"))
    assert caught.value.retry_seconds == 8.0


@pytest.mark.parametrize(("each", "retry"), [(0.001, SHORTEST_RETRY), (900.0, LONGEST_RETRY)])
def test_the_pause_has_bounds(clock, each, retry):
    queue = FairQueue(1, 1, clock)
    queue.note(each, 1)
    join(queue, entry())
    with pytest.raises(Busy) as caught:
        join(queue, entry())
    assert caught.value.retry_seconds == retry


def test_whoever_comes_back_is_as_old_as_before(clock):
    queue = FairQueue(1, 1, clock)
    join(queue, entry(member="first"))
    refused = entry(member="refused")
    with pytest.raises(Busy):
        join(queue, refused)
    order(queue)
    clock.now += 1
    (younger,) = join(queue, entry(member="younger"))
    clock.now += 1
    again = entry(member="refused")
    join(queue, again)
    assert again.since == refused.since
    with pytest.raises(Busy, match="the place is kept"):
        younger.answer.result(0)
    assert order(queue) == [again]


def test_a_place_is_not_kept_for_ever(clock):
    queue = FairQueue(1, 1, clock)
    join(queue, entry(member="first"))
    with pytest.raises(Busy):
        join(queue, entry(member="late"))
    order(queue)
    clock.now += 3600
    (late,) = join(queue, entry(member="late"))
    assert late.since == clock.now


def test_an_owner_of_few_pushes_out_the_youngest_of_an_owner_of_many(clock):
    queue = FairQueue(4, 1, clock)
    many = join(queue, *(entry("many") for _ in range(4)))
    clock.now += 1
    (few,) = join(queue, entry("few"))
    with pytest.raises(Busy):
        many[3].answer.result(0)
    assert order(queue) == [many[0], few, many[1], many[2]]


def test_whoever_would_wait_in_vain_is_told_at_once(clock):
    queue = FairQueue(10, 2, clock)
    queue.note(6.0, 1)
    join(queue, *(entry() for _ in range(4)))
    with pytest.raises(Busy, match="longer than its deadline") as caught:
        join(queue, entry(), seconds=10.0)
    assert caught.value.retry_seconds == 2.0
    join(queue, entry(), seconds=20.0)


def test_the_patient_are_never_refused(clock):
    queue = FairQueue(1, 1, clock)
    join(queue, entry())
    join(queue, *(entry(patient=True) for _ in range(3)))
    with pytest.raises(Busy):
        join(queue, entry())
    assert queue.length == 4


def test_whoever_leaves_frees_a_place(clock):
    queue = FairQueue(1, 1, clock)
    (gone,) = join(queue, entry())
    queue.leave(gone, Cancelled("gone"))
    (there,) = join(queue, entry())
    assert order(queue) == [there]
    with pytest.raises(Cancelled):
        gone.answer.result(0)


def test_groups_are_taken_together(clock):
    queue = FairQueue(10, 1, clock)
    mine = join(queue, *(entry("a", group="model") for _ in range(3)))
    other, alone = join(queue, entry("b", group="model"), entry("b"))
    assert queue.take(3, 0) == [mine[0], other, mine[1]]
    assert queue.take(3, 0) in ([alone], [mine[2]])


def test_a_closed_queue_answers_all(clock):
    queue = FairQueue(10, 1, clock)
    (waiting,) = join(queue, entry())
    queue.close()
    with pytest.raises(Unavailable):
        waiting.answer.result(0)
    with pytest.raises(Unavailable):
        join(queue, entry())
    assert queue.take(1, 0) == []


@pytest.mark.parametrize("seed", range(20))
def test_nobody_starves(clock, seed):
    """Fifty clients of three owners that ask again as soon as they are answered, for places for eight."""
    draw = random.Random(seed)
    queue, served, waits = FairQueue(8, 1, clock), Counter(), []
    queue.note(1.0, 1)
    owners = {f"client {number}": f"owner {0 if number < 40 else number % 2 + 1}" for number in range(50)}
    events = [(clock.now + draw.random(), client) for client in owners]
    asked = dict.fromkeys(owners, clock.now)
    heapq.heapify(events)
    busy_until = clock.now

    def ask(client):
        waiting = entry(owners[client], client)
        waiting.answer.add_done_callback(lambda done: refused(client, done.exception()) if done.exception() else None)
        try:
            queue.join(waiting, 1000.0)
        except Busy as error:
            refused(client, error)

    def refused(client, error):
        heapq.heappush(events, (clock.now + error.retry_seconds * draw.uniform(1, 1.25), client))

    while clock.now < 2100:
        if events and (events[0][0] <= busy_until or not queue.length):
            clock.now, client = heapq.heappop(events)
            ask(client)
            continue
        clock.now = busy_until = max(busy_until, clock.now) + draw.uniform(0.5, 1.5)
        (done,) = queue.take(1, 0)
        queue.note(1.0, 1)
        client = done.caller.member
        served[client] += 1
        waits.append(clock.now - asked[client])
        asked[client] = clock.now
        heapq.heappush(events, (clock.now, client))
    totals = Counter()
    for client, count in served.items():
        totals[owners[client]] += count
    assert set(served) == set(owners)
    assert sum(totals.values()) > 1900
    # Each owner a third, as long as it always asks, and of that each client a fair part.
    assert max(totals.values()) < 1.6 * min(totals.values())
    for owner in totals:
        own = [served[client] for client in owners if owners[client] == owner]
        assert max(own) <= 2 * min(own) + 2
