"""The default launcher: every other service is a child process that is supervised and restarted.

A service manager such as supervisord would restart them as well. What it lacks is adoption: a later orchestrator takes
over the services of one that crashed (see `child`), so that trainings survive the crash.
"""

import importlib.util
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from cellsparse_common.config.settings import ENV_PREFIX, StoreSettings
from cellsparse_common.errors import StorageError
from cellsparse_orchestrator.launchers.base import GATEWAY, SPARSIFIER, Service
from cellsparse_orchestrator.launchers.child import Child, Command, adopt, start, trim_log
from cellsparse_orchestrator.launchers.environments import find_python, how_to_get
from cellsparse_orchestrator.launchers.probe import probe
from cellsparse_orchestrator.launchers.resident import ResidentServices
from cellsparse_orchestrator.run_states import backoff
from cellsparse_orchestrator.settings import OrchestratorSettings

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.1
_PROBE_SECONDS = 4.0
_BETWEEN_PROBES = 5.0
_UNRESPONSIVE_SECONDS = 120.0
"""A child that does not answer for this long is killed and restarted."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
_SETTLED_SECONDS = 60.0
"""A child that ran this long before it ended is restarted without a long pause."""
_GATEWAY_PREFIX = f"{ENV_PREFIX}GATEWAY_"
_SHARED_FIELDS = (
    *StoreSettings.model_fields,
    "max_message_mib",
    "max_pixels",
    "max_file_mib",
    "drain_seconds",
    "log_level",
)


class LocalLauncher(ResidentServices):
    """Runs the other services as child processes on this machine.

    Args:
        settings: Which modules to start, and what to pass on to them.
    """

    stops_trainers = True

    def __init__(self, settings: OrchestratorSettings) -> None:
        modules = {SPARSIFIER: settings.sparsifier_module, **settings.trainer_modules}
        if settings.web_port is not None:
            modules[GATEWAY] = settings.gateway_module
        pythons = {name: find_python(name, settings.trainer_pythons) for name in modules}
        absent = [_without_environment(name) for name in modules if pythons[name] is None]
        found = {name: python for name, python in pythons.items() if python is not None}
        super().__init__([_starting(name) for name in found], absent)
        self._stop_seconds = settings.drain_seconds + 5
        self._end = threading.Event()
        self._supervisors = [
            _Supervisor(_command(name, modules[name], settings, python), self._end, self._stop_seconds, self._publish)
            for name, python in found.items()
        ]

    def start(self) -> None:
        """Adopt the services that still run, start the others, and supervise all (see `Launcher`)."""
        for supervisor in self._supervisors:
            supervisor.start()

    def stop(self) -> None:
        """End all children: first SIGTERM, then SIGKILL when the time is over (see `Launcher`)."""
        self._end.set()
        deadline = time.monotonic() + self._stop_seconds
        for supervisor in self._supervisors:
            supervisor.join(_PROBE_SECONDS + 1)
        children = [supervisor.child for supervisor in self._supervisors if supervisor.child is not None]
        for child in children:
            child.ask_to_end()
        for child in children:
            child.end(deadline - time.monotonic())


class _Supervisor(threading.Thread):
    """Keeps one service running."""

    def __init__(
        self, command: Command, end: threading.Event, stop_seconds: float, publish: Callable[[Service], None]
    ) -> None:
        super().__init__(name=f"supervise-{command.name}", daemon=True)
        self._command = command
        self._end = end
        self._stop_seconds = stop_seconds
        self._publish = publish
        self.child: Child | None = None

    def run(self) -> None:
        if self._command.python == sys.executable and not _is_installed(self._command.module):
            message = f"The package {self._command.module} is not installed."
            self._publish(Service(name=self._command.name, message=message, missing=True))
            return
        failures = 0
        while not self._end.is_set():
            began = time.monotonic()
            try:
                self.child = adopt(self._command, self._stop_seconds)
                if self._end.is_set():
                    return
                self.child = self.child or start(self._command)
                self._supervise(self.child)
            except OSError as error:
                self._report(f"{self._command.name} cannot be started: {error.strerror or error}.")
            except StorageError as error:
                self._report(f"{self._command.name} cannot be started: {error.message}")
            failures = 1 if time.monotonic() - began > _SETTLED_SECONDS else failures + 1
            self._end.wait(backoff(failures, _FIRST_PAUSE, _LONGEST_PAUSE))

    def _supervise(self, child: Child) -> None:
        """Supervise a child until it is gone, is killed after failed health checks, or the launcher ends."""
        name = self._command.name
        service = _starting(name, child.pid)
        self._publish(service)
        answered, next_probe = time.monotonic(), 0.0
        while not self._end.wait(_LOOK_SECONDS):
            if not child.alive():
                log = f"logs/{self._command.log_file.name} in the home folder"
                self._report(f"{name} {child.how_it_ended()}; it is being restarted. Its log is {log}.")
                return
            if time.monotonic() >= next_probe:
                trim_log(self._command.log_file)
                found = self._probe(service)
                if found is not None and found.healthy:
                    answered = time.monotonic()
                service = found or service
                next_probe = time.monotonic() + (_BETWEEN_PROBES if service.healthy else 0.2)
            if time.monotonic() - answered > _UNRESPONSIVE_SECONDS:
                self._report(f"{name} did not answer for {_UNRESPONSIVE_SECONDS:g} s; it is being restarted.")
                child.end(0.0)
                return

    def _probe(self, last: Service) -> Service | None:
        """Check the child's health, publish the result and return it; None if the child has no address yet."""
        try:
            address = self._command.address_file.read_text().strip()
        except OSError:
            return None
        health = probe(self._command.name, address, _PROBE_SECONDS)
        ready = health.healthy or bool(last.address)
        service = Service(
            name=self._command.name,
            address=address if ready else "",
            healthy=health.healthy,
            pid=last.pid,
            message=health.message,
            versions=health.versions,
        )
        self._publish(service)
        return service

    def _report(self, message: str) -> None:
        _LOG.warning(message)
        self._publish(Service(name=self._command.name, message=message))


def _starting(name: str, pid: int = 0) -> Service:
    return Service(name=name, pid=pid, message=f"{name} is being started.")


def _without_environment(name: str) -> Service:
    return Service(name=name, missing=True, message=how_to_get(name))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


def _command(name: str, module: str, settings: OrchestratorSettings, python: str = sys.executable) -> Command:
    # Leave out the orchestrator's own variables (port, workers, ...): the child would take them for its own.
    ours = {f"{ENV_PREFIX}{field}".upper() for field in OrchestratorSettings.model_fields}
    environment = {key: value for key, value in os.environ.items() if key.upper() not in ours}
    for field in _SHARED_FIELDS:
        value = getattr(settings, field)
        if value is not None and value != "":
            environment[f"{ENV_PREFIX}{field}".upper()] = _as_text(value)
    command = Command(name=name, module=module, python=python, environment=environment, home=Path(settings.home))
    environment |= {
        f"{ENV_PREFIX}HOME": str(command.home),
        f"{ENV_PREFIX}HOST": "127.0.0.1",
        f"{ENV_PREFIX}PORT": "0",
        f"{ENV_PREFIX}ADDRESS_FILE": str(command.address_file),
        f"{ENV_PREFIX}OWNER_PID": str(os.getpid()),
        f"{ENV_PREFIX}WORK_DIR": str(command.home / "work" / name),
    }
    if name == GATEWAY:
        environment |= {
            f"{ENV_PREFIX}AUTH": settings.auth,
            f"{ENV_PREFIX}INSECURE": str(settings.insecure),
            f"{_GATEWAY_PREFIX}PORT": str(settings.web_port),
            f"{_GATEWAY_PREFIX}DRAIN_SECONDS": str(settings.drain_seconds),
            f"{_GATEWAY_PREFIX}LOG_LEVEL": settings.log_level,
            f"{_GATEWAY_PREFIX}ADDRESS_FILE": str(command.address_file),
            f"{_GATEWAY_PREFIX}OWNER_PID": str(os.getpid()),
        }
        tls = settings.client_tls() if settings.tls_cert else None
        if tls is not None:
            words = {"CA": tls.ca, "CERT": tls.cert, "KEY": tls.key, "SERVER_NAME": tls.server_name}
            environment |= {f"{_GATEWAY_PREFIX}TLS_{word}": str(value) for word, value in words.items() if value}
        environment.pop(f"{_GATEWAY_PREFIX}ORCHESTRATOR", None)  # it reads our address in the home folder
    environment.setdefault(f"{ENV_PREFIX}TARGET_DIR", str(command.home / "targets" / name))
    return command


def _as_text(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
