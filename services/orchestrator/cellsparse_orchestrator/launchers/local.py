"""The embedded default: every other service is a child process, watched and restarted."""

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from cellsparse_common.config.settings import ENV_PREFIX, StoreSettings
from cellsparse_common.errors import StorageError
from cellsparse_orchestrator.launchers.base import ONE, SPARSIFIER, Service, Size
from cellsparse_orchestrator.launchers.child import Child, Command, adopt, start
from cellsparse_orchestrator.launchers.probe import probe
from cellsparse_orchestrator.run_states import pause_before
from cellsparse_orchestrator.settings import OrchestratorSettings

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.1
_PROBE_SECONDS = 4.0
_BETWEEN_PROBES = 5.0
_DEAF_SECONDS = 120.0
"""A service that runs but does not answer for so long is killed and restarted."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_SETTLED_SECONDS = 60.0
"""Who lived so long before dying is restarted without a long pause."""
_SHARED_FIELDS = (
    *StoreSettings.model_fields,
    "max_message_mib",
    "max_pixels",
    "max_file_mib",
    "drain_seconds",
    "log_level",
)


class LocalLauncher:
    """Child processes on this machine.

    Args:
        settings: Which modules to start, and what to tell them.
    """

    stops_trainers = True

    def __init__(self, settings: OrchestratorSettings) -> None:
        modules = {SPARSIFIER: settings.sparsifier_module, **settings.trainer_modules}
        self._stop_seconds = settings.drain_seconds + 5
        self._end = threading.Event()
        self._keepers = {
            name: _Supervisor(_command(name, module, settings), self._end, self._stop_seconds)
            for name, module in modules.items()
        }

    def start(self) -> None:
        """Adopt what still runs, start the rest, and go on watching (see `Launcher`)."""
        for keeper in self._keepers.values():
            keeper.start()

    def stop(self) -> None:
        """End all children: SIGTERM, and SIGKILL when the time is over (see `Launcher`)."""
        self._end.set()
        deadline = time.monotonic() + self._stop_seconds
        for keeper in self._keepers.values():
            keeper.join(_PROBE_SECONDS + 1)
        children = [keeper.child for keeper in self._keepers.values() if keeper.child is not None]
        for child in children:
            child.ask_to_end()
        for child in children:
            child.end(deadline - time.monotonic())

    def services(self) -> list[Service]:
        """Return all services (see `Launcher`)."""
        return [keeper.service for keeper in self._keepers.values()]

    def service(self, name: str) -> Service | None:
        """Return one service (see `Launcher`)."""
        keeper = self._keepers.get(name)
        return None if keeper is None else keeper.service

    def ensure(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Return the backend's trainer (see `Launcher`)."""
        return self.service(backend) or Service(
            name=backend, missing=True, message=f"No {backend} trainer is configured."
        )

    def find(self, backend: str, run_id: str, attempt: int, size: Size = ONE) -> Service:
        """Return the backend's trainer (see `Launcher`)."""
        return self.ensure(backend, run_id, attempt, size)

    def release(self, run_id: str, attempt: int) -> None:
        """Do nothing: the trainer stays (see `Launcher`)."""

    def subscribe(self, run_id: str, attempt: int, news: Callable[[], None]) -> None:
        """Do nothing: no answer here says `waiting` (see `Launcher`)."""

    def keep_only(self, under_way: Callable[[], set[tuple[str, int]]]) -> bool:
        """Do nothing: nothing is made for an attempt (see `Launcher`)."""
        return True


class _Supervisor(threading.Thread):
    """Keeps one service running."""

    def __init__(self, command: Command, end: threading.Event, stop_seconds: float) -> None:
        super().__init__(name=f"keep-{command.name}", daemon=True)
        self._command = command
        self._end = end
        self._stop_seconds = stop_seconds
        self.child: Child | None = None
        # Replaced as a whole, so that readers never see half a change.
        self.service = Service(name=command.name, message=f"{command.name} is being started.")

    def run(self) -> None:
        if not _is_installed(self._command.module):
            message = f"The package {self._command.module} is not installed."
            self.service = Service(name=self._command.name, message=message, missing=True)
            return
        failures = 0
        while not self._end.is_set():
            began = time.monotonic()
            try:
                self.child = adopt(self._command, self._stop_seconds)
                if self._end.is_set():
                    return
                self.child = self.child or start(self._command)
                self._attend(self.child)
            except OSError as error:
                self._say(f"{self._command.name} cannot be started: {error.strerror or error}.")
            except StorageError as error:
                self._say(f"{self._command.name} cannot be started: {error.message}")
            failures = 1 if time.monotonic() - began > _SETTLED_SECONDS else failures + 1
            self._end.wait(pause_before(failures, _FIRST_PAUSE, _LONGEST_PAUSE))

    def _attend(self, child: Child) -> None:
        """Watch a child until it is gone, or killed for being deaf, or the launcher ends."""
        name = self._command.name
        self.service = Service(name=name, pid=child.pid, message=f"{name} is being started.")
        answered, next_probe = time.monotonic(), 0.0
        while not self._end.wait(_LOOK_SECONDS):
            if not child.alive():
                self._say(f"{name} {child.how_it_ended()}; it is being restarted. Its log: {self._command.log_file}")
                return
            if time.monotonic() >= next_probe:
                if self._look(child):
                    answered = time.monotonic()
                next_probe = time.monotonic() + (_BETWEEN_PROBES if self.service.healthy else 0.2)
            if time.monotonic() - answered > _DEAF_SECONDS:
                self._say(f"{name} did not answer for {_DEAF_SECONDS:g} s; it is being restarted.")
                child.end(0.0)
                return

    def _look(self, child: Child) -> bool:
        """Ask the child for its health; False if it has no address yet or does not answer."""
        try:
            address = self._command.address_file.read_text().strip()
        except OSError:
            return False
        health = probe(self._command.name, address, _PROBE_SECONDS)
        ready = health.healthy or bool(self.service.address)
        self.service = Service(
            name=self._command.name,
            address=address if ready else "",
            healthy=health.healthy,
            pid=child.pid,
            message=health.message,
            versions=health.versions,
        )
        return health.healthy

    def _say(self, message: str) -> None:
        _LOG.warning(message)
        self.service = Service(name=self._command.name, message=message)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that the module would be in
        return False


def _command(name: str, module: str, settings: OrchestratorSettings) -> Command:
    # The variables that only an orchestrator reads would be read by the child as its own: port, workers, ...
    ours = {f"{ENV_PREFIX}{field}".upper() for field in OrchestratorSettings.model_fields}
    environment = {key: value for key, value in os.environ.items() if key.upper() not in ours}
    for field in _SHARED_FIELDS:
        value = getattr(settings, field)
        if value is not None and value != "":
            environment[f"{ENV_PREFIX}{field}".upper()] = _as_text(value)
    command = Command(name=name, module=module, environment=environment, home=Path(settings.home))
    environment |= {
        f"{ENV_PREFIX}HOME": str(command.home),
        f"{ENV_PREFIX}HOST": "127.0.0.1",
        f"{ENV_PREFIX}PORT": "0",
        f"{ENV_PREFIX}ADDRESS_FILE": str(command.address_file),
        f"{ENV_PREFIX}OWNER_PID": str(os.getpid()),
        f"{ENV_PREFIX}WORK_DIR": str(command.home / "work" / name),
    }
    environment.setdefault(f"{ENV_PREFIX}TARGET_DIR", str(command.home / "targets" / name))
    return command


def _as_text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
