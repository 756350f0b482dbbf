"""Notifications between threads: a thread that changed something wakes the threads that wait for it."""

import threading

RECONCILER = "reconciler"
"""Topic that wakes the reconciler of runs."""
STUDIES = "studies"
"""Topic that wakes the reconciler of studies; also notified when a run has ended."""


class Notifier:
    """Wakes threads that wait for a topic. A notification between looking and waiting is not lost.

    A waiting thread reads `version`, then looks for news, then passes the version to `wait`.

    Args:
        most_topics: Topics whose last notification is remembered. Waiters on a topic that was evicted may wake
            spuriously.
    """

    def __init__(self, most_topics: int = 10_000) -> None:
        self._condition = threading.Condition()
        self._most = most_topics
        self._number = 0
        self._last: dict[str, int] = {}
        """Number of the last notification by topic, in the order of these numbers."""
        self._evicted = 0
        """Number of the newest notification of an evicted topic."""
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the service is stopping, so that nobody should wait any longer."""
        return self._closed

    def version(self, topic: str) -> int:
        """Return the number of the topic's last notification; read it before looking for news."""
        with self._condition:
            return self._last.get(topic, self._evicted)

    def notify(self, *topics: str) -> None:
        """Announce news on topics (run ids, or any other names)."""
        with self._condition:
            for topic in topics:
                self._number += 1
                self._last.pop(topic, None)
                self._last[topic] = self._number
            if len(self._last) > self._most:
                # Evict half of them at once: each eviction wakes all waiters on evicted topics.
                for topic in list(self._last)[: len(self._last) // 2]:
                    self._evicted = self._last.pop(topic)
            self._condition.notify_all()

    def wait(self, topic: str, seen: int, seconds: float) -> None:
        """Return when the topic may have been notified after version `seen`, on `close`, or after some seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._last.get(topic, self._evicted) != seen, seconds)

    def close(self) -> None:
        """Wake all waiters for good."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
