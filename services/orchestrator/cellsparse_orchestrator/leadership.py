"""Lead or stand by: take the lease on the database, keep it, or wait for it."""

import logging
import threading
from collections.abc import Callable

from cellsparse_common.errors import CellsparseError
from cellsparse_orchestrator.db.lease import LOOKS, LeaseLost
from cellsparse_orchestrator.db.session import Database

_LOG = logging.getLogger(__name__)
_END_SECONDS = 20.0
STANDBY = (
    "This orchestrator stands by, because another one works with its database; it takes over when that one ends. "
    "Try again in a few seconds."
)
LOST = "Another orchestrator has taken over the database, because this one gave no sign of life; this one ends."


class Leadership(threading.Thread):
    """Keeps or awaits the lease, in a thread of its own.

    Args:
        database: The database.
        seconds: How long a holder may give no sign of life.
        lead: Called once, when the lease is ours.
        lost: Called once, when another orchestrator has taken it from us.
    """

    def __init__(self, database: Database, seconds: float, lead: Callable[[], None], lost: Callable[[], None]) -> None:
        super().__init__(name="leadership", daemon=True)
        self._database = database
        self._pause = seconds / LOOKS
        self._lead = lead
        self._lost = lost
        self._end = threading.Event()
        self._leads = False
        self.was_lost = False
        """Whether we held the lease, and another orchestrator has taken it."""

    @property
    def ever_led(self) -> bool:
        """Whether this orchestrator leads, or has led."""
        return self._leads

    @property
    def problem(self) -> str:
        """Why this orchestrator does not lead; empty: it does."""
        if self.was_lost:
            return LOST
        return "" if self._leads else STANDBY

    def begin(self) -> None:
        """Lead at once if nobody else does, and start the thread."""
        try:
            if not self._try():
                _LOG.warning(STANDBY)
        except CellsparseError as error:
            _LOG.warning("the lease cannot be looked at now: %s", error.message)
        self.start()

    def run(self) -> None:
        """Renew the lease, or look whether it can be taken, until `stop`."""
        while not self._end.wait(self._pause):
            try:
                if self._leads:
                    self._database.renew_lease()
                elif self._try():
                    _LOG.warning("this orchestrator leads now")
            except LeaseLost:
                _LOG.error(LOST)
                self.was_lost = True
                self._lost()
                return
            except CellsparseError as error:
                _LOG.warning("the lease cannot be looked at now: %s", error.message)
            except Exception:  # noqa: BLE001 - logged whole; the next look may do better
                _LOG.exception("the lease cannot be looked at now")

    def stop(self) -> None:
        """End the thread. The lease is given back when the database is closed."""
        self._end.set()
        if self.is_alive():
            self.join(_END_SECONDS)

    def _try(self) -> bool:
        if self._database.try_lead():
            self._lead()
            self._leads = True
        return self._leads
