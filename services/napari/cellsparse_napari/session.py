"""Calls to the server on behalf of one widget: every one can be ended from outside, at any moment."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cellsparse import Client
from cellsparse.errors import Cancelled, CellsparseError, Unavailable

CALL_SECONDS = 30.0


class Session:
    """Holds the connections that are in use, so that `leave` and `cancel` can end what waits for them.

    Args:
        address: host:port of the orchestrator; empty: CELLSPARSE_ADDRESS, or what `cellsparse up` started.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._open: set[Client] = set()
        self._closed: set[Client] = set()
        self._note = ""
        self._cancelled = self._left = False
        self._run_id = ""

    @property
    def cancelled(self) -> bool:
        """Whether the user wants no more of it."""
        return self._cancelled

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Give a client of its own that is closed at the end.

        Raises:
            Cancelled: The session was cancelled or left.
            CellsparseError: No server is known, or a call failed.
        """
        with self._lock:
            self.check()
            client = Client(self.address or None, timeout=CALL_SECONDS)
            self._open.add(client)
        try:
            yield client
        except Exception as error:
            if client in self._closed:  # what failed since its connection was closed is no failure
                raise Cancelled("Cancelled.") from error
            raise
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()

    def check(self) -> None:
        """Raise if there is no reason to go on.

        Raises:
            Cancelled: The session was cancelled or left.
        """
        if self._left or (self._cancelled and not self._run_id):
            raise Cancelled("Cancelled.")

    def began(self, run_id: str) -> None:
        """Note the run that trains; from now on `cancel` cancels it, as it does at once if it was called before.

        Raises:
            CellsparseError: The server cannot be reached.
        """
        with self._lock:
            self._run_id = run_id
            cancelled = self._cancelled
        if cancelled:
            self._cancel_run(run_id)

    def ended(self) -> None:
        """Note that the run has ended: `cancel` closes the connections again."""
        with self._lock:
            self._run_id = ""

    def cancel(self) -> None:
        """Cancel the run, which takes a moment; without a run, end the calls that are being made.

        Raises:
            CellsparseError: The server cannot be reached.
        """
        with self._lock:
            self._cancelled = True
            run_id = self._run_id
        if run_id:
            self._cancel_run(run_id)
        else:
            self._close()

    def leave(self) -> None:
        """End all calls. A run that trains goes on, on the server."""
        self._left = True
        self._close()

    def note(self, text: str) -> None:
        """Leave a line for people while a call goes on."""
        self._note = text

    def take_note(self) -> str:
        """Return the newest line once; empty: there is none."""
        text, self._note = self._note, ""
        return text

    def _cancel_run(self, run_id: str) -> None:
        try:
            with self.client() as client:
                client.cancel(run_id)
        except Cancelled:
            raise
        except CellsparseError as error:
            self.leave()  # who wants no more of it need not wait for the server either
            raise Unavailable(f"{error.message} Run {run_id} was not cancelled and may go on there.") from error

    def _close(self) -> None:
        with self._lock:
            clients = list(self._open)
            self._closed.update(clients)
        for client in clients:
            client.close()
