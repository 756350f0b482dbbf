"""A real MinIO server on loopback, for as long as a test needs it."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
from minio import Minio
from minio.error import MinioException
from support.certificates import make_certificates
from support.interrupts import interrupts_wait
from support.limits import PATIENCE
from support.secrets import S3_SECRET_KEY as SECRET_KEY
from support.server_process import end_process

from cellsparse_common.config.settings import StoreSettings, load
from cellsparse_common.storage.s3_connection import connect

PROGRAM = Path(__file__).parents[2] / ".tools" / "bin" / "minio"
DOMAIN = "store.test"
ACCESS_KEY = "test-access"
REGION = "eu-central-1"
PROBE_SECONDS = 2.0
PORT_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class MinioServer:
    """A running server: host:port, and the authority to trust if it speaks TLS."""

    endpoint: str
    ca_bundle: Path | None

    def settings(self, store_url: str, **changes: object) -> StoreSettings:
        """Settings for a store in this server."""
        values: dict[str, object] = {
            "store_url": store_url,
            "s3_endpoint": self.endpoint,
            "s3_secure": self.ca_bundle is not None,
            "s3_region": REGION,
            "s3_access_key": ACCESS_KEY,
            "s3_secret_key": SECRET_KEY,
            "s3_ca_bundle": self.ca_bundle,
        }
        return load(StoreSettings, **values | changes)

    def environment(self, store_url: str) -> dict[str, str]:
        """The same settings as variables, added to this process's own."""
        return {**os.environ, **store_environment(self.settings(store_url))}

    def client(self) -> Minio:
        """A plain client, to make buckets with."""
        return connect(self.settings("s3://unused")).client


def store_environment(settings: StoreSettings) -> dict[str, str]:
    """What tells another process to open the store of these settings."""
    values = settings.model_dump(include=set(StoreSettings.model_fields), exclude_none=True)
    values["s3_secret_key"] = settings.s3_secret_key.get_secret_value()
    return {f"CELLSPARSE_{name.upper()}": str(value) for name, value in values.items()}


def find_minio() -> Path:
    """The server program; skips the test where it can be neither found nor built."""
    if PROGRAM.is_file():
        return PROGRAM
    if shutil.which("go") is None:
        pytest.skip("MinIO is not built and Go is not installed to build it with")
    pytest.fail("MinIO is not built; `make tools` builds it")


@contextmanager
def running_minio(folder: Path, *, tls: bool = False) -> Iterator[MinioServer]:
    """Start a server with an empty store in a folder; stop it on the way out.

    It answers for buckets as paths and as sub-domains of `DOMAIN`.
    """
    program = find_minio()
    certificates = folder / "certificates"
    certificates.mkdir()
    ca_bundle = make_certificates(certificates) if tls else None
    for attempt in range(PORT_ATTEMPTS):
        server = MinioServer(endpoint=f"127.0.0.1:{_free_port()}", ca_bundle=ca_bundle)
        process = None
        try:
            with interrupts_wait():
                process = _start(program, folder, server.endpoint, certificates)
            if _answers(server, process):
                yield server
                return
        finally:
            end_process(process)
        if attempt == PORT_ATTEMPTS - 1:
            pytest.fail(f"MinIO did not start: {(folder / 'log.txt').read_text()[-2000:]}")


class KillableMinio:
    """A server that a test kills and starts again, on one port and with one store.

    Args:
        folder: Where it keeps everything; empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "certificates").mkdir(parents=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.server = MinioServer(endpoint=f"127.0.0.1:{_free_port()}", ca_bundle=None)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = _start(find_minio(), self._folder, self.server.endpoint, self._folder / "certificates")
        assert _answers(self.server, self._process), (self._folder / "log.txt").read_text()[-2000:]

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)


def _start(program: Path, folder: Path, endpoint: str, certificates: Path) -> subprocess.Popen[bytes]:
    environment = {
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "MINIO_DOMAIN": DOMAIN,
        "MINIO_SITE_REGION": REGION,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "GOMAXPROCS": "2",
    }
    command = [program, "server", "--address", endpoint, "--certs-dir", certificates, folder / "data"]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder)


def _answers(server: MinioServer, process: subprocess.Popen[bytes]) -> bool:
    # Short patience: a request that comes too early may never be answered, the next one is.
    trust = ssl.create_default_context(cafile=server.ca_bundle)
    http = urllib3.PoolManager(timeout=PROBE_SECONDS, retries=False, ssl_context=trust)
    secure = server.ca_bundle is not None
    client = Minio(server.endpoint, ACCESS_KEY, SECRET_KEY, secure=secure, region=REGION, http_client=http)
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.list_buckets()
        except (urllib3.exceptions.HTTPError, MinioException):
            time.sleep(0.1)
        else:
            return True
    return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
