"""The command that container health checks run, against a real server."""

import os
import subprocess
import sys

import pytest
from support.certificates import Authority
from support.limits import PATIENCE
from support.server_process import ServerProcess

from cellsparse_common.config.settings import ServerSettings, load
from cellsparse_common.rpc.health import check, own_address


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    with ServerProcess(["-m", "cellsparse_sparsifier"], folder / "store", folder) as server:
        yield server


def probe(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")}
    command = [sys.executable, "-m", "cellsparse_common.rpc.health", *arguments]
    return subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_a_serving_server_is_healthy(server):
    assert probe(server.address).returncode == 0
    assert probe(server.address, "--service", "cellsparse.v1.SparsifierService").returncode == 0


def test_the_own_server_needs_no_address(server):
    host, _, port = server.address.partition(":")
    assert probe(CELLSPARSE_HOST=host, CELLSPARSE_PORT=port).returncode == 0


def test_another_service_or_no_server_is_told_in_a_sentence(server):
    done = probe(server.address, "--service", "no.such.Service")
    assert (done.returncode, done.stderr.strip()) == (1, f"{server.address} answers NOT_FOUND.")
    assert check("127.0.0.1:1", seconds=1) in (
        "127.0.0.1:1 answers UNAVAILABLE.",
        "127.0.0.1:1 answers DEADLINE_EXCEEDED.",
    )


def test_without_any_address_it_asks_which():
    done = probe()
    assert (done.returncode, done.stderr.strip()) == (1, "Which server? Give host:port, or set CELLSPARSE_PORT.")


@pytest.mark.parametrize(("names", "mutual"), [("DNS:sparsifier.example", False), ("IP:127.0.0.1", True)])
def test_a_server_with_tls_is_asked_by_whatever_name_it_has(tmp_path, names, mutual):
    authority = Authority(tmp_path / "authority")
    authority.sign(tmp_path / "tls.crt", tmp_path / "tls.key", names)
    tls = {"CELLSPARSE_TLS_CERT": str(tmp_path / "tls.crt"), "CELLSPARSE_TLS_KEY": str(tmp_path / "tls.key")}
    if mutual:
        tls["CELLSPARSE_TLS_CLIENT_CA"] = str(authority.certificate)
    with ServerProcess(["-m", "cellsparse_sparsifier"], tmp_path / "store", tmp_path, **tls) as server:
        host, _, port = server.address.partition(":")
        listen = {"CELLSPARSE_HOST": host, "CELLSPARSE_PORT": port}
        done = probe(**listen, **tls)
        assert (done.returncode, done.stderr) == (0, "")
        assert probe(**listen).returncode == 1
        authority.sign(tmp_path / "other.crt", tmp_path / "other.key", names)
        other = {"CELLSPARSE_TLS_CERT": str(tmp_path / "other.crt"), "CELLSPARSE_TLS_KEY": str(tmp_path / "other.key")}
        done = probe(**listen, **other)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{server.address} shows no certificate from {tmp_path}/other.crt: ")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("0.0.0.0", "127.0.0.1:7"),  # noqa: S104
        ("[::]", "[::1]:7"),
        ("10.1.2.3", "10.1.2.3:7"),
    ],
)
def test_a_server_on_all_interfaces_is_asked_on_loopback(host, address):
    assert own_address(load(ServerSettings, host=host, port=7)) == address
