"""Reports a training to the server: events as JSON lines."""

import logging
import os
import resource
import threading
from typing import Any, NoReturn, TextIO

from google.protobuf import json_format

from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.training.loop import Progress

_LOG = logging.getLogger(__name__)
PEER_LOST = 76
"""Exit code of a process that ended because another process of its training was lost."""


class Reporter:
    """Writes events to the server.

    Args:
        out: Where to.
        leads: Whether this is rank 0. Of the other ranks only the first on a node reports that it began and ended.
    """

    def __init__(self, out: TextIO, *, leads: bool = True) -> None:
        self._out = out
        self._leads = leads
        self._lock = threading.Lock()
        self.state = common_pb2.RUN_STATE_STARTING
        self.total_steps = 0
        self.device = ""

    def send(self, **fields: Any) -> None:
        """Send one event with the current state; ranks above 0 send nothing while the run is starting."""
        if not self._leads and self.state == common_pb2.RUN_STATE_STARTING:
            return
        event = trainer_pb2.TrainingEvent(
            state=self.state,
            total_steps=self.total_steps,
            peak_memory_mib=peak_memory_mib(),
            device=self.device,
            **fields,
        )
        with self._lock:
            # In one piece, since all processes of a training write to the same pipe.
            self._out.write(json_format.MessageToJson(event, indent=None) + "\n")
            self._out.flush()

    def lost(self, message: str) -> NoReturn:
        """Report that another process of this training is lost, and end this one."""
        _LOG.error("ended: %s", message)
        self.failed(common_pb2.FAILURE_REASON_LOST, message)
        os._exit(PEER_LOST)

    def failed(self, reason: "common_pb2.FailureReason", message: str, *, damaged: bool = False) -> None:
        """Send the final event of a training that failed; `damaged`: because of an object in the store."""
        self.state = common_pb2.RUN_STATE_FAILED
        self.send(reason=reason, message=message, damaged=damaged)

    def progress(self, progress: Progress) -> None:
        """Send what the loop reports."""
        self.send(
            step=progress.step,
            epoch=progress.epoch,
            losses=progress.losses,
            validation=progress.validation,
            images_per_second=progress.images_per_second,
            eta_seconds=progress.eta_seconds,
            checkpoint_step=progress.checkpoint_step,
        )

    def say(self, sentence: str) -> None:
        """Send something that people should see at once, not only in the log."""
        _LOG.warning(sentence)
        self.send(message=sentence, log_lines=[sentence])

    def log(self, line: str) -> None:
        """Send a line of the log."""
        _LOG.info(line)
        self.send(log_lines=[line])


def peak_memory_mib() -> float:
    """Return the largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
