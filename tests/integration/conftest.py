"""What integration tests share: their order, and databases of both kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgres import NoPostgres, Postgres

LONGEST = (
    "test_crash_matrix",
    "test_ranks",
    "test_trainer_kills",
    "test_start_from_stock_file",
    "test_export",
    "test_trainer_contract",
    "test_trainer_faults",
    "test_ranks_network",
    "test_orchestrator_failures",
    "test_studies",
)
"""Files that take longest. They begin first, so that none is left alone at the end with a processor that idles."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; all others keep their order."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for all tests."""
    server = Postgres()
    try:
        server.__enter__()
    except NoPostgres as error:
        server.__exit__()
        pytest.skip(f"no PostgreSQL can be started here: {error}")
    yield server
    server.__exit__()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'a.db'}"
    return request.getfixturevalue("postgres").create_database()
