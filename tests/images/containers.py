"""Containers as a cluster runs them: without rights, the root file system read-only, on the host's network."""

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

QUICK_SECONDS = 60
SCRIPT_SECONDS = 600
STOP_SECONDS = 40
RESTRICTED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


class DockerError(Exception):
    """Docker refused, with what it said."""


@dataclass(kw_only=True)
class Docker:
    """The docker command, and what was started with it.

    Attributes:
        command: Path or name.
        started: Names of containers that are to be removed.
    """

    command: str
    started: list[str] = field(default_factory=list)

    def ask(self, *arguments: str, given: str = "", seconds: float = QUICK_SECONDS) -> str:
        """Run one docker command and return what it prints.

        Raises:
            DockerError: It failed, took longer than `seconds`, or there is no such command.
        """
        try:
            done = subprocess.run(
                [self.command, *arguments], input=given, capture_output=True, text=True, timeout=seconds, check=False
            )
        except FileNotFoundError:
            raise DockerError(f"there is no command {self.command!r}") from None
        except subprocess.TimeoutExpired:
            raise DockerError(f"docker {arguments[0]} took longer than {seconds:g} s") from None
        if done.returncode:
            raise DockerError(f"docker {arguments[0]}: {done.stderr.strip() or done.returncode}")
        return done.stdout

    def config(self, image: str) -> dict[str, Any]:
        """Return how an image is configured: user, labels, environment, health check."""
        config: dict[str, Any] = json.loads(self.ask("image", "inspect", image))[0]["Config"]
        return config

    def base(self, image: str) -> str:
        """Return the name of the image that another one was built on.

        Raises:
            DockerError: It does not say.
        """
        name = (self.config(image)["Labels"] or {}).get("org.opencontainers.image.base.name")
        if not name:
            raise DockerError(f"{image} has no label that names its base image")
        return str(name)

    def files(self, image: str) -> dict[str, int]:
        """Return the size of every regular file of an image, by path."""
        find = ["-xdev", "-type", "f", "-printf", "%s %p\n"]
        listed = self.ask("run", "--rm", "--network=none", "--user=0", "--entrypoint", "find", image, "/", *find)
        return {path: int(size) for size, _, path in (line.partition(" ") for line in listed.splitlines())}

    def python(self, image: str, script: str, given: Any) -> Any:
        """Run a script with an image's own Python; JSON in, JSON out."""
        command = ["run", "--rm", "--interactive", "--network=none", *RESTRICTED, "--entrypoint", "python", image]
        return json.loads(self.ask(*command, "-c", script, given=json.dumps(given), seconds=SCRIPT_SECONDS))

    def start(self, name: str, image: str, volume: str, environment: Mapping[str, str]) -> None:
        """Start a server; `remove_all` ends it."""
        variables = [part for key, value in environment.items() for part in ("--env", f"{key}={value}")]
        self.ask(
            *("run", "--detach", "--name", name, "--network=host", *RESTRICTED),
            *("--volume", volume, "--health-interval", "5s", *variables, image),
        )
        self.started.append(name)

    def healthy(self, name: str, seconds: float) -> bool:
        """Wait until a container's own health check succeeds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            state = json.loads(self.ask("inspect", name))[0]["State"]
            if state["Health"]["Status"] == "healthy":
                return True
            if not state["Running"]:
                return False
            time.sleep(0.5)
        return False

    def writable(self, name: str, path: str) -> bool:
        """Whether the server's user can make a file in a container."""
        code = f"open({path!r}, 'w').close()"
        try:
            self.ask("exec", name, "python", "-c", code)
        except DockerError:
            return False
        return True

    def stop(self, name: str) -> int:
        """Send SIGTERM and return the exit code."""
        self.ask("stop", "--time", str(STOP_SECONDS), name, seconds=STOP_SECONDS + QUICK_SECONDS)
        return int(json.loads(self.ask("inspect", name))[0]["State"]["ExitCode"])

    def logs(self, name: str, lines: int = 30) -> str:
        """Return the last lines that a container printed."""
        return subprocess.run(
            [self.command, "logs", "--tail", str(lines), name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=QUICK_SECONDS,
            check=False,
        ).stdout

    def remove_all(self) -> None:
        """Remove the containers that were started here."""
        for name in self.started:
            self.ask("rm", "--force", "--volumes", name)
        self.started.clear()
