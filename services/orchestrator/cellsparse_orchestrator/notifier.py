"""Notifications between threads: a thread that changed something wakes the threads and streams that wait for it."""

import threading

from cellsparse_common.rpc.waiting_streams import Pause, Waiter, wait_out

RECONCILER = "reconciler"
"""Topic that wakes the reconciler of runs."""
STUDIES = "studies"
"""Topic that wakes the reconciler of studies; also notified when a run has ended."""


class Notifier:
    """Wakes those who wait for a topic. A notification between looking and waiting is not lost.

    Whoever waits reads `version`, then looks for news, then passes the version to `wait` or `news`. Only those who wait
    for a topic are woken by it: a thousand trainings report every second, and each report is a notification.

    Args:
        most_topics: Topics whose last notification is remembered. Waiters on a topic that was evicted may wake
            spuriously.
    """

    def __init__(self, most_topics: int = 10_000) -> None:
        self._lock = threading.Lock()
        self._most = most_topics
        self._number = 0
        self._last: dict[str, int] = {}
        """Number of the last notification by topic, in the order of these numbers."""
        self._evicted = 0
        """Number of the newest notification of an evicted topic."""
        self._waiting: dict[str, set[Waiter]] = {}
        """Who waits, by topic."""
        self._told: dict[str, set[str]] = {}
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the service is stopping, so that nobody should wait any longer."""
        return self._closed

    def version(self, topic: str) -> int:
        """Return the number of the topic's last notification; read it before looking for news."""
        with self._lock:
            return self._last.get(topic, self._evicted)

    def notify(self, *topics: str) -> None:
        """Announce news on topics (run ids, or any other names)."""
        with self._lock:
            self._announce(topics)

    def tell(self, topic: str, *subjects: str) -> None:
        """Announce news on a topic, and what they are about, for `take`."""
        with self._lock:
            self._told.setdefault(topic, set()).update(subjects)
            self._announce((topic,))

    def take(self, topic: str) -> set[str]:
        """Return what the news on a topic were about since the last call; for the one thread that acts on them."""
        with self._lock:
            return self._told.pop(topic, set())

    def wait(self, topic: str, seen: int, seconds: float) -> None:
        """Return when the topic may have been notified after version `seen`, on `close`, or after some seconds."""
        wait_out(self.news(topic, seen, seconds))

    def news(self, topic: str, seen: int, seconds: float) -> Pause:
        """Return the same wait as a pause of a stream."""
        return _News(self, topic, seen, seconds)

    def close(self) -> None:
        """Wake all waiters for good."""
        with self._lock:
            self._closed = True
            self._wake_all()

    def _announce(self, topics: tuple[str, ...]) -> None:
        for topic in topics:
            self._number += 1
            self._last.pop(topic, None)
            self._last[topic] = self._number
            for woken in self._waiting.get(topic, ()):
                woken.set()
        if len(self._last) > self._most:
            # Evict half of them at once: each eviction wakes all waiters, since it changes many versions.
            for topic in list(self._last)[: len(self._last) // 2]:
                self._evicted = self._last.pop(topic)
            self._wake_all()

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for woken in waiting:
                woken.set()

    def _begin(self, topic: str, seen: int, waiter: Waiter) -> bool:
        with self._lock:
            if self._closed or self._last.get(topic, self._evicted) != seen:
                return False
            self._waiting.setdefault(topic, set()).add(waiter)
            return True

    def _end(self, topic: str, waiter: Waiter) -> None:
        with self._lock:
            waiting = self._waiting.get(topic, set())
            waiting.discard(waiter)
            if not waiting:
                self._waiting.pop(topic, None)


class _News(Pause):
    """A wait for news on a topic (see `Notifier.wait`)."""

    def __init__(self, notifier: Notifier, topic: str, seen: int, seconds: float) -> None:
        self.seconds = seconds
        self._notifier = notifier
        self._topic = topic
        self._seen = seen

    def begin(self, waiter: Waiter) -> bool:
        """See `Pause.begin`."""
        return self._notifier._begin(self._topic, self._seen, waiter)

    def end(self, waiter: Waiter) -> None:
        """See `Pause.end`."""
        self._notifier._end(self._topic, waiter)
