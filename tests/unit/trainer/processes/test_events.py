import threading

from support.limits import PATIENCE

from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.processes.events import EventLog

RUNNING, DONE = common_pb2.RUN_STATE_RUNNING, common_pb2.RUN_STATE_SUCCEEDED


def event(state=RUNNING, **fields):
    return trainer_pb2.TrainingEvent(state=state, **fields)


def sequences(log, after=0, wanted=lambda: True):
    return [found.sequence for found in log.follow(after, wanted)]


def test_events_are_numbered_and_end_with_the_final_one(tmp_path):
    log = EventLog(tmp_path / "e.jsonl")
    for step in range(3):
        log.append(event(step=step))
    log.append(event(DONE))
    log.append(event(step=99))
    assert log.ended
    assert sequences(log) == [1, 2, 3, 4]
    assert sequences(log, after=2) == [3, 4]


def test_a_follower_gets_what_comes_later(tmp_path):
    log = EventLog(tmp_path / "e.jsonl")
    found = []
    follower = threading.Thread(target=lambda: found.extend(sequences(log)))
    follower.start()
    for _ in range(50):
        log.append(event())
    log.append(event(DONE))
    follower.join(PATIENCE)
    assert found == list(range(1, 52))


def test_an_unwanted_stream_ends(tmp_path):
    log = EventLog(tmp_path / "e.jsonl")
    log.append(event())
    assert sequences(log, wanted=lambda: False) == [1]


def test_a_log_is_read_again_after_a_crash_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "e.jsonl"
    log = EventLog(path)
    log.append(event(step=1))
    log.append(event(step=2))
    with path.open("a") as file:
        file.write('{"sequence": 3, "sta')
    again = EventLog(path)
    again.append(event(DONE))
    assert sequences(again) == [1, 2, 3]
