"""What integration tests share: databases of both kinds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgres import NoPostgres, Postgres


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
