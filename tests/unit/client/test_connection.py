"""A client that outlives its orchestrator, and addresses that are none."""

import json

import pytest

from cellsparse import Client
from cellsparse.errors import Cancelled, InvalidArgument, Unavailable
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2


@pytest.fixture
def moved(fake, monkeypatch, tmp_path, make):
    """A function that starts the fake on another port, known by the file in the home folder only."""
    monkeypatch.delenv("CELLSPARSE_ADDRESS")
    home = tmp_path / "home"
    home.mkdir()
    fake.state.datasets = [dataset_pb2.Dataset(id="ds-abc1", name="nuclei")]
    fake.state.runs = [make.run("run-1", "first", common_pb2.RUN_STATE_SUCCEEDED)]
    fake.state.events = [make.event(1, common_pb2.RUN_STATE_SUCCEEDED)]

    def tell():
        (home / "orchestrator.json").write_text(json.dumps({"address": fake.address, "pid": 1}))

    def move():
        fake.stop()
        (home / "orchestrator.json").unlink()
        before = fake.address
        while fake.address == before:
            fake.start()
        tell()

    tell()
    return move


CALLS = {
    "unary": lambda client: client.status(),
    "pages": lambda client: list(client.datasets()),
    "stream": lambda client: client.sparsify("ds-abc1", k=1),
    "upload": lambda client: client.create_dataset("a", [("i", "train", b"II", b"II")]),
    "watch": lambda client: list(client.watch("run-1")),
    "thread": lambda client: client.connection.another().call("GetStatus", orchestrator_pb2.GetStatusRequest()),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_orchestrator_that_was_started_again_is_found_by_any_call(moved, monkeypatch, tmp_path, call):
    with Client() as client:
        CALLS["unary"](client)
        moved()
        monkeypatch.setenv("CELLSPARSE_HOME", str(tmp_path / "another"))  # is about other clients
        CALLS[call](client)


def test_an_address_that_was_given_stays(fake, moved):
    with Client(fake.address) as client:
        moved()
        with pytest.raises(Unavailable, match="No orchestrator answers at"):
            client.status()


def test_a_home_that_knows_none(moved, fake, tmp_path):
    with Client() as client:
        (tmp_path / "home" / "orchestrator.json").write_text(json.dumps({"address": "::1", "pid": 10**30}))
        assert client.status().services
        with pytest.raises(Unavailable, match="No orchestrator is known"):
            Client()


def test_addresses_that_are_none(monkeypatch):
    with pytest.raises(InvalidArgument, match="The address is 'http://host:1'; allowed: host:port, without http://"):
        Client("http://host:1")
    monkeypatch.setenv("CELLSPARSE_ADDRESS", "host:99999")
    with pytest.raises(InvalidArgument, match="CELLSPARSE_ADDRESS is 'host:99999'; allowed: a port from 1 to 65535"):
        Client()


def test_a_closed_client_says_so(fake):
    client = Client()
    client.close()
    with pytest.raises(Cancelled, match="was closed"):
        client.status()
