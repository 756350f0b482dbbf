"""TLS between real processes: certificates checked on both sides, replaced while the server runs, and told apart."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.certificates import Authority
from support.limits import PATIENCE
from support.orchestrator import Orchestrator, state_names
from support.server_process import ServerProcess

import cellsparse
from cellsparse.cli.app import run
from cellsparse.errors import Unavailable
from cellsparse_common.config.settings import ServerSettings, load
from cellsparse_common.config.tls import ClientTls, ServerTls, server_credentials
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.rpc.channel import open_channel

SPARSIFIER = ["-m", "cellsparse_sparsifier"]
SERVING = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def certificate(authority, tmp_path):
    """Certificate and key for 127.0.0.1, as a Secret is mounted."""
    folder = tmp_path / "tls"
    folder.mkdir()
    authority.sign(folder / "tls.crt", folder / "tls.key")
    return {"CELLSPARSE_TLS_CERT": str(folder / "tls.crt"), "CELLSPARSE_TLS_KEY": str(folder / "tls.key")}


@pytest.fixture
def start(tmp_path):
    servers = []

    def enter(**environment):
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        server = ServerProcess(SPARSIFIER, tmp_path / "store", folder, **environment)
        servers.append(server)
        return server.__enter__()

    yield enter
    for server in servers:
        server.__exit__(None, None, None)


def ask(address, tls):
    with open_channel(address, tls=tls) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status


def test_a_server_with_a_certificate_speaks_tls_only(start, authority, certificate, tmp_path):
    server = start(**certificate)
    good = ClientTls(ca=str(authority.certificate))
    assert ask(server.address, good) == SERVING
    other = ClientTls(ca=str(Authority(tmp_path / "other").certificate))
    wrong_name = ClientTls(ca=str(authority.certificate), server_name="trainer.example")
    for refused in (None, other, wrong_name):
        with pytest.raises(grpc.RpcError) as caught:
            ask(server.address, refused)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_clients_show_certificates_where_asked(start, authority, certificate, tmp_path):
    server = start(**certificate, CELLSPARSE_TLS_CLIENT_CA=str(authority.certificate))
    ca = str(authority.certificate)
    own, key = tmp_path / "own.crt", tmp_path / "own.key"
    authority.sign(own, key, "DNS:client")
    assert ask(server.address, ClientTls(ca=ca, cert=own, key=key)) == SERVING
    Authority(tmp_path / "other").sign(own, key, "DNS:client")
    for refused in (ClientTls(ca=ca), ClientTls(ca=ca, cert=own, key=key)):
        with pytest.raises(grpc.RpcError):
            ask(server.address, refused)


def test_pods_are_known_by_a_name_of_their_certificate(start, authority, tmp_path):
    cert, key = tmp_path / "pod.crt", tmp_path / "pod.key"
    authority.sign(cert, key, "DNS:cellsparse-trainer")
    server = start(CELLSPARSE_TLS_CERT=str(cert), CELLSPARSE_TLS_KEY=str(key))
    ca = str(authority.certificate)
    assert ask(server.address, ClientTls(ca=ca, server_name="cellsparse-trainer")) == SERVING
    with pytest.raises(grpc.RpcError):
        ask(server.address, ClientTls(ca=ca))
    with pytest.raises(grpc.RpcError):
        ask(server.address.replace("127.0.0.1", "localhost"), ClientTls(ca=ca, server_name="cellsparse-trainer"))


def test_certificates_are_replaced_without_a_restart(start, authority, certificate, tmp_path):
    server = start(**certificate)
    with open_channel(server.address, tls=ClientTls(ca=str(authority.certificate))) as old:
        stub = health_pb2_grpc.HealthStub(old)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == SERVING
        # In two steps, as files are: in between the pair does not fit, and the one before stays in use.
        new = Authority(tmp_path / "new")
        cert, key = tmp_path / "new.crt", tmp_path / "new.key"
        new.sign(cert, key)
        shutil.copy(cert, certificate["CELLSPARSE_TLS_CERT"])
        assert ask(server.address, ClientTls(ca=str(authority.certificate))) == SERVING
        shutil.copy(key, certificate["CELLSPARSE_TLS_KEY"])
        assert ask(server.address, ClientTls(ca=str(new.certificate))) == SERVING
        with pytest.raises(grpc.RpcError):
            ask(server.address, ClientTls(ca=str(authority.certificate)))
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == SERVING, (
            "an open connection broke"
        )
    log = server.log.read_text()
    assert "the previous one stays in use" in log
    assert "was changed and is used from now on" in log
    assert "PRIVATE KEY" not in log


def test_the_whole_system_with_tls(authority, certificate, tmp_path, monkeypatch, capsys):
    """Orchestrator, sparsifier and trainer each with a certificate; SDK and command line from outside."""
    ca = str(authority.certificate)
    tls = {**certificate, "CELLSPARSE_TLS_CA": ca}
    store = tmp_path / "home" / "store"
    for name in ("trainer", "sparsifier"):
        (tmp_path / name).mkdir()
    for name in list(os.environ):
        if name.startswith("CELLSPARSE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CELLSPARSE_TLS_CA", "")  # so that what `--ca` puts there does not outlive this test
    with (
        ServerProcess(["-m", "support.cellsparse_fake"], store, tmp_path / "trainer", **tls) as trainer,
        ServerProcess(SPARSIFIER, store, tmp_path / "sparsifier", **tls) as sparsifier,
        Orchestrator(
            tmp_path / "home",
            tls=ClientTls(ca=ca),
            CELLSPARSE_LAUNCHER="static",
            CELLSPARSE_TRAINERS=f"unet={trainer.address}",
            CELLSPARSE_SPARSIFIER=sparsifier.address,
            **tls,
        ) as orchestrator,
    ):
        assert orchestrator.healthy("sparsifier").healthy
        orchestrator.healthy("unet")
        run_id = orchestrator.train(orchestrator.upload().id, steps=3).id
        assert state_names(orchestrator.watch(run_id))[-1] == "SUCCEEDED"
        with cellsparse.Client(orchestrator.address, ca=ca) as client:
            assert client.run(run_id).id == run_id
        address = ["--address", orchestrator.address]
        assert run(["--ca", ca, "runs", "list", *address, "--json"]) == 0
        assert run_id in capsys.readouterr().out
        monkeypatch.delenv("CELLSPARSE_TLS_CA", raising=False)
        with cellsparse.Client(orchestrator.address) as plain, pytest.raises(Unavailable, match="name its authority"):
            plain.run(run_id)
        other = str(Authority(tmp_path / "other").certificate)
        with (
            cellsparse.Client(orchestrator.address, ca=other) as stranger,
            pytest.raises(Unavailable, match="not signed by"),
        ):
            stranger.run(run_id)
        with pytest.raises(InvalidArgument, match="cannot be read"):
            cellsparse.Client(orchestrator.address, ca=str(tmp_path / "none"))


def test_local_services_need_no_certificates(authority, certificate, tmp_path):
    tls = {**certificate, "CELLSPARSE_TLS_CA": str(authority.certificate)}
    with Orchestrator(tmp_path / "home", tls=ClientTls(ca=str(authority.certificate)), **tls) as orchestrator:
        orchestrator.healthy("sparsifier")
        orchestrator.healthy("unet")


def test_bad_certificates_are_one_sentence(authority, certificate, tmp_path, monkeypatch):
    cert, key = (certificate[f"CELLSPARSE_TLS_{name}"] for name in ("CERT", "KEY"))
    authority.sign(tmp_path / "b.crt", tmp_path / "b.key")
    (tmp_path / "text").write_text("hunter2")
    for pair, words in {
        (cert, str(tmp_path / "b.key")): "cannot be used together",
        (cert, str(tmp_path / "none")): "cannot be read: No such file",
        (str(tmp_path / "text"), key): "not in PEM format",
    }.items():
        with pytest.raises(InvalidArgument, match=words) as caught:
            server_credentials(ServerTls(cert=Path(pair[0]), key=Path(pair[1])))
        assert "hunter2" not in str(caught.value)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")},
        "CELLSPARSE_PORT": "0",
        "CELLSPARSE_TLS_CERT": cert,
        "CELLSPARSE_TLS_KEY": str(tmp_path / "b.key"),
    }
    done = subprocess.run(
        [sys.executable, *SPARSIFIER], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    assert "cannot be used together" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    for values in ({"tls_cert": cert}, {"tls_key": key}):
        with pytest.raises(InvalidArgument, match="TLS_CERT and CELLSPARSE_TLS_KEY must be given together"):
            load(ServerSettings, **values)
    with pytest.raises(InvalidArgument, match="TLS_CLIENT_CA needs"):
        load(ServerSettings, tls_client_ca=cert)
