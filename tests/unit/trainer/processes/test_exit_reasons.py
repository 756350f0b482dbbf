"""Why a training process ended that sent no final event."""

import re
import signal

import pytest

from cellsparse_proto.v1 import common_pb2
from cellsparse_trainer.processes.exit_reasons import Exit, explain_exit
from cellsparse_trainer.processes.launch import Placement

LOST, INTERNAL = common_pb2.FAILURE_REASON_LOST, common_pb2.FAILURE_REASON_INTERNAL
OUT_OF_MEMORY = common_pb2.FAILURE_REASON_OUT_OF_MEMORY
TWO = Placement(hosts=("a", "b"), node=0, processes=1, port=1, rendezvous_seconds=8.0)


@pytest.mark.parametrize(
    ("code", "tail", "placement", "killed", "reason", "words"),
    [
        (-signal.SIGKILL, [], None, False, LOST, r"killed \(signal 9\)"),
        (-signal.SIGKILL, [], None, True, OUT_OF_MEMORY, "Memory ran out"),
        (-signal.SIGTERM, [], None, True, LOST, "ended by signal 15"),
        (-signal.SIGABRT, ["what(): std::bad_alloc"], None, False, OUT_OF_MEMORY, "Memory ran out"),
        (-signal.SIGABRT, ["assertion"], None, False, LOST, "signal 6"),
        (3, ["ImportError"], None, True, INTERNAL, "code 3 and no result"),
        (1, ["ImportError"], TWO, True, OUT_OF_MEMORY, "Memory ran out"),
        (1, ["ImportError"], TWO, False, LOST, "One of the 2 training processes"),
        (1, ["1/2 clients: waiting for clients"], TWO, False, LOST, "2 nodes were there within 8 s"),
    ],
)
def test_the_final_event_says_why(code, tail, placement, killed, reason, words):
    event = explain_exit(Exit(code=code, tail=tail, plan=None, placement=placement, killed_for_memory=killed))
    assert (event.state, event.reason) == (common_pb2.RUN_STATE_FAILED, reason)
    assert re.search(words, event.message)
    assert list(event.log_lines) == (tail if reason in (LOST, INTERNAL) and code > 0 else [])
