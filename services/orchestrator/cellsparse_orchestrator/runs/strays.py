"""End trainings that should not run: compare what trainers say that they do with the database.

A watcher asks its trainer to end an attempt until that is confirmed, but not for ever: the orchestrator may be killed
meanwhile, or the trainer may not answer for so long that the attempt counts as lost. It then trains on, beside the next
run. Pods of training Jobs are removed by their launcher (see `Launcher.keep_only`).
"""

import logging
import threading
from collections.abc import Iterable

import grpc

from cellsparse_common.errors import CellsparseError, from_rpc_error
from cellsparse_common.rpc.channel import open_channel
from cellsparse_orchestrator.launchers.base import NOT_TRAINERS, Launcher
from cellsparse_orchestrator.runs.transitions import RunTransitions
from cellsparse_proto.v1 import trainer_pb2, trainer_pb2_grpc

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS = 10.0
_DESCRIBE_SECONDS = 5.0
_END_SECONDS = 5.0
Attempt = tuple[str, int]
"""A run's id, and the number of its attempt."""


class StrayWatch(threading.Thread):
    """Asks every trainer now and then, in a thread of its own.

    Args:
        transitions: The runs.
        launcher: Knows the trainers.
        stop_seconds: How long a trainer may take to end an attempt.
        pause_seconds: Time between two looks.
    """

    def __init__(
        self,
        transitions: RunTransitions,
        launcher: Launcher,
        stop_seconds: float,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        super().__init__(name="strays", daemon=True)
        self._transitions = transitions
        self._launcher = launcher
        self._stop_seconds = stop_seconds
        self._pause_seconds = pause_seconds
        self._end = threading.Event()

    def run(self) -> None:
        """Look until `stop`."""
        while not self._end.wait(self._pause_seconds):
            for service in self._launcher.services():
                if not self._end.is_set() and service.address and service.name not in NOT_TRAINERS:
                    self._look_safely(service.name, service.address)

    def stop(self) -> None:
        """End the thread soon."""
        self._end.set()
        if self.is_alive():
            self.join(_END_SECONDS)

    def look(self, name: str, address: str) -> list[Attempt]:
        """End what should not run at one trainer; return what that was.

        Raises:
            CellsparseError: The trainer or the database does not answer.
        """
        try:
            with open_channel(address) as channel:
                stub = trainer_pb2_grpc.TrainerServiceStub(channel)
                # First the trainer, then the database: an attempt is recorded before its trainer hears of it.
                active = parse(stub.Describe(trainer_pb2.DescribeRequest(), timeout=_DESCRIBE_SECONDS).active)
                known = self._transitions.known({run_id for run_id, _ in active}) if active else set()
                found = strays(active, known, self._transitions.under_way() if active else set())
                for run_id, number in found:
                    _LOG.warning("the %s trainer still trains attempt %d of run %s; ending it", name, number, run_id)
                    request = trainer_pb2.StopTrainingRequest(run_id=run_id, attempt=number)
                    stub.StopTraining(request, timeout=self._stop_seconds)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        return found

    def _look_safely(self, name: str, address: str) -> None:
        try:
            self.look(name, address)
        except CellsparseError as error:
            _LOG.info("what the %s trainer does is not known now: %s", name, error.message)
        except Exception:  # noqa: BLE001 - logged whole; the next look may do better
            _LOG.exception("what the %s trainer does is not known now", name)


def strays(active: Iterable[Attempt], known: set[str], under_way: set[Attempt]) -> list[Attempt]:
    """Return the attempts that a trainer should not be training.

    Args:
        active: What it trains.
        known: Runs that this orchestrator knows. Others may be those of another one, which shares the trainer.
        under_way: Attempts that have begun and not ended.
    """
    return [attempt for attempt in active if attempt[0] in known and attempt not in under_way]


def parse(active: Iterable[str]) -> list[Attempt]:
    """Return attempts that a trainer names as "run_id/attempt"; other names are left out."""
    parts = [name.rpartition("/") for name in active]
    return [(run_id, int(number)) for run_id, _, number in parts if run_id and number.isdecimal()]
