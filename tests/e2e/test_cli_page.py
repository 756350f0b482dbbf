"""The page's server as `cellsparse up` starts it: where it is, that it comes back, and that nothing of it stays."""

import os
import signal
import socket

import httpx
import pytest
from support.limits import PATIENCE
from support.orchestrator import FAKE_TRAINER, until
from support.server_process import TESTS

from .conftest import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A stack with a trainer that starts quickly."""
    home = tmp_path_factory.mktemp("stack") / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")}
    environment |= {"CELLSPARSE_HOME": str(home), "CELLSPARSE_TRAINER_MODULES": FAKE_TRAINER, "PYTHONPATH": str(TESTS)}
    running = Stack(home, {**environment, "BROWSER": "true"})
    yield running
    running.run("down")


def gateway(stack):
    # `up` waits until all services are healthy, where `status` would end with code 4.
    return next(service for service in stack.json("up")["services"] if service["name"] == "gateway")


def answers(url: str) -> bool:
    return httpx.get(url, timeout=PATIENCE).status_code == 200


def test_up_starts_the_page_and_open_opens_it(stack):
    told = stack.json("up")
    assert told["page"].startswith("http://127.0.0.1:")
    assert answers(told["page"])
    assert answers(f"{told['page']}readyz")
    assert stack.run("open").stdout.strip() == told["page"]
    assert (stack.home / "logs" / "gateway.log").stat().st_size > 0


def test_a_killed_gateway_comes_back_at_the_same_address(stack):
    before = gateway(stack)
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: gateway(stack)["pid"] not in (0, before["pid"]))
    assert gateway(stack)["address"] == before["address"]


def test_down_ends_it_and_a_port_that_is_taken_is_refused(stack):
    address = gateway(stack)["address"]
    stack.run("down")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(address.rpartition(":")[2])))
        other.listen()
        refused = stack.run("up", "--web-port", address.rpartition(":")[2], code=2)
        assert "is in use; --web-port takes another one" in refused.stderr
    assert stack.json("up")["page"] == f"http://{address}/"
