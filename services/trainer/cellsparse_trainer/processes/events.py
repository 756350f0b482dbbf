"""The event log of one attempt: a file of JSON lines that any number of watchers can follow."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from google.protobuf import json_format

from cellsparse_proto.v1 import common_pb2, trainer_pb2

FINAL = frozenset(
    {common_pb2.RUN_STATE_SUCCEEDED, common_pb2.RUN_STATE_FAILED, common_pb2.RUN_STATE_CANCELLED},
)
_POLL_SECONDS = 1.0


class EventLog:
    """Numbers events, appends them to a file, and wakes all followers. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._changed = threading.Condition()
        self._sequence = 0
        self._state = common_pb2.RUN_STATE_UNSPECIFIED
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._recover()

    @property
    def state(self) -> "common_pb2.RunState":
        """The newest event's state."""
        return self._state

    @property
    def ended(self) -> bool:
        """Whether the last event is final; nothing is appended after it."""
        return self._state in FINAL

    def append(self, event: trainer_pb2.TrainingEvent) -> None:
        """Append an event with its number and the current time; ignored after a final event."""
        with self._changed:
            if self.ended:
                return
            event.sequence = self._sequence + 1
            event.time.GetCurrentTime()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json_format.MessageToJson(event, indent=None) + "\n")
            self._sequence, self._state = event.sequence, event.state
            self._changed.notify_all()

    def follow(self, after: int, wanted: Callable[[], bool]) -> Iterator[trainer_pb2.TrainingEvent]:
        """Yield the events with a sequence above `after`, up to and with the final one.

        Args:
            after: Sequence number; 0 for all.
            wanted: Called about once a second while there is nothing new; False ends the stream.
        """
        with self.path.open("rb") as file:
            while True:
                position = file.tell()
                line = file.readline()
                if line.endswith(b"\n"):
                    event = _parse(line)
                    if event.sequence > after:
                        yield event
                    if event.state in FINAL:
                        return
                    continue
                file.seek(position)
                with self._changed:
                    if self.path.stat().st_size <= position:
                        self._changed.wait(_POLL_SECONDS)
                if not wanted():
                    return

    def _recover(self) -> None:
        """Continue a log that a dead process left behind; an incomplete last line is cut off."""
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    event = _parse(line)
                    self._sequence, self._state = event.sequence, event.state
                    whole += len(line)
        os.truncate(self.path, whole)


def _parse(line: bytes) -> trainer_pb2.TrainingEvent:
    return json_format.Parse(line, trainer_pb2.TrainingEvent())
