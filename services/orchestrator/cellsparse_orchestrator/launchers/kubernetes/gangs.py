"""Gang scheduling: a training on several nodes gets all of its nodes or holds none."""

import random
import time
from collections.abc import Callable
from dataclasses import replace

from cellsparse_orchestrator.launchers.kubernetes.reasons import Verdict

_AGAIN_SECONDS = 1.0


class Gangs:
    """Releases attempts that hold only a part of their nodes for too long, and delays their next try.

    Kubernetes schedules pods one by one, so two trainings that need the same nodes may each get a part of them.

    Args:
        seconds: How long a part may be held. The random pause before the next try is up to half of it, so that two
            trainings do not collide again.
        remove: Deletes a Job by name, soon.
    """

    def __init__(self, seconds: float, remove: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._remove = remove
        self._since: dict[str, float] = {}
        self._not_before: dict[str, float] = {}

    def look(self, name: str, verdict: Verdict) -> Verdict:
        """Return the verdict on an attempt's pods; delete the Job if they have held only a part for too long."""
        if not verdict.in_part:
            self._since.pop(name, None)
            return verdict
        left = self._since.setdefault(name, time.monotonic()) + self._seconds - time.monotonic()
        if left > 0:
            return replace(verdict, again_seconds=left)
        del self._since[name]
        self._not_before[name] = time.monotonic() + random.uniform(0.0, self._seconds / 2)
        self._remove(name)
        return replace(verdict, message=f"{verdict.message.removesuffix('.')}; its nodes were released.", in_part=False)

    def give_back(self, name: str) -> None:
        """Delete a Job that another one is to replace as soon as it is gone."""
        self._since.pop(name, None)
        self._not_before[name] = time.monotonic()
        self._remove(name)

    def waits(self, name: str, *, left: bool) -> Verdict | None:
        """Return what a released attempt waits for; None if its Job may be created.

        Args:
            name: Name of the Job.
            left: Whether the Job or one of its pods still exists.
        """
        if name not in self._not_before:
            return None
        pause = self._not_before[name] - time.monotonic()
        if left or pause > 0:
            message = "Waiting until all its nodes have room at once."
            return Verdict(waiting=True, no_room=True, message=message, again_seconds=max(pause, _AGAIN_SECONDS))
        del self._not_before[name]
        return None

    def forget(self, name: str) -> None:
        """Forget an attempt that has ended."""
        self._since.pop(name, None)
        self._not_before.pop(name, None)
