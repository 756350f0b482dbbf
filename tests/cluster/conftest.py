"""A control plane for all cluster tests of a session, and a namespace of its own for each test."""

from collections.abc import Iterator

import pytest
from kubernetes import client
from support.control_plane import ControlPlane, new_namespace, running_control_plane


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory) -> Iterator[ControlPlane]:
    """A real API server, controller manager and scheduler; skips where they can be neither found nor built."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def admin(control_plane) -> Iterator[client.ApiClient]:
    """A client that may do everything."""
    with control_plane.client("admin") as api:
        yield api


@pytest.fixture
def namespace(admin) -> Iterator[str]:
    """A namespace of the test's own; deleted on the way out, with all in it."""
    with new_namespace(admin) as name:
        yield name


@pytest.fixture(scope="module")
def shared_namespace(admin) -> Iterator[str]:
    """A namespace for all tests of a module."""
    with new_namespace(admin) as name:
        yield name
