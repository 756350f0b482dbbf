"""Servers beyond loopback: refused without TLS or authentication, allowed with both, or when told so."""

import os
import ssl
import subprocess
import sys

import httpx
import pytest
from support.certificates import Authority
from support.gateway import Gateway
from support.limits import PATIENCE
from support.orchestrator import Orchestrator
from support.server_process import ServerProcess

import cellsparse

EVERYWHERE = "0.0.0.0"  # noqa: S104
NEEDED = {
    "cellsparse_orchestrator": "CELLSPARSE_AUTH=tokens or CELLSPARSE_TLS_CLIENT_CA",
    "cellsparse_sparsifier": "CELLSPARSE_TLS_CLIENT_CA",
    "support.cellsparse_fake": "CELLSPARSE_TLS_CLIENT_CA",
    "cellsparse_gateway": "CELLSPARSE_GATEWAY_BEHIND_HTTPS=1",
}


@pytest.mark.parametrize("module", NEEDED)
def test_a_server_that_everybody_would_reach_does_not_start(module, tmp_path):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")},
        "PYTHONPATH": os.pathsep.join(sys.path),
        "CELLSPARSE_HOME": str(tmp_path),
        "CELLSPARSE_STORE_URL": f"file://{tmp_path}/store",
        "CELLSPARSE_WORK_DIR": str(tmp_path / "work"),
        "CELLSPARSE_LAUNCHER": "static",
        "CELLSPARSE_HOST": EVERYWHERE,
        "CELLSPARSE_PORT": "0",
        "CELLSPARSE_GATEWAY_HOST": EVERYWHERE,
        "CELLSPARSE_GATEWAY_PORT": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", module], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert f"does not listen on {EVERYWHERE}" in said
    assert NEEDED[module] in said
    assert "CELLSPARSE_INSECURE=1" in said


def test_with_tls_and_tokens_or_told_so_it_starts(tmp_path):
    authority = Authority(tmp_path / "authority")
    authority.sign(tmp_path / "tls.crt", tmp_path / "tls.key", "IP:127.0.0.1")
    with Orchestrator(
        tmp_path / "home",
        CELLSPARSE_LAUNCHER="static",
        CELLSPARSE_AUTH="tokens",
        CELLSPARSE_HOST=EVERYWHERE,
        CELLSPARSE_TLS_CERT=str(tmp_path / "tls.crt"),
        CELLSPARSE_TLS_KEY=str(tmp_path / "tls.key"),
    ) as orchestrator:
        port = orchestrator.address.rpartition(":")[2]
        token = (tmp_path / "home" / "admin-token").read_text().strip()
        address = f"127.0.0.1:{port}"
        with cellsparse.Client(address, ca=str(authority.certificate), token=token) as client:
            assert client.caller().authentication
    told = {"CELLSPARSE_HOST": EVERYWHERE, "CELLSPARSE_INSECURE": "1"}
    with ServerProcess(["-m", "cellsparse_sparsifier"], tmp_path / "store", tmp_path, **told) as server:
        assert server.running()


def test_the_gateway_speaks_https(tmp_path):
    authority = Authority(tmp_path / "authority")
    authority.sign(tmp_path / "tls.crt", tmp_path / "tls.key", "IP:127.0.0.1")
    certificate = {
        "CELLSPARSE_GATEWAY_HTTPS_CERT": str(tmp_path / "tls.crt"),
        "CELLSPARSE_GATEWAY_HTTPS_KEY": str(tmp_path / "tls.key"),
    }
    with Gateway(tmp_path / "home", **certificate) as gateway:
        trusted = ssl.create_default_context(cafile=str(authority.certificate))
        assert httpx.get(f"https://{gateway.address}/healthz", verify=trusted, timeout=PATIENCE).status_code == 200
