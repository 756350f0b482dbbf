"""One real node with the chart on it for all tests of a session."""

from collections.abc import Iterator

import pytest
from support.real_node.cluster import NAMESPACE, VALUES, Cluster, Release, running_cluster

from cellsparse import Client


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A control plane and a node with one GPU that is none; skips where a node cannot run."""
    with running_cluster() as found:
        yield found


@pytest.fixture(scope="session")
def release(cluster) -> Release:
    """The chart as on a laptop, with SQLite."""
    found = Release(cluster, NAMESPACE)
    found.install(VALUES)
    return found


@pytest.fixture
def in_cluster(release, monkeypatch) -> Iterator[Client]:
    """A client of the release's orchestrator."""
    for name, value in release.environment().items():
        monkeypatch.setenv(name, value)
    with Client() as client:
        yield client
