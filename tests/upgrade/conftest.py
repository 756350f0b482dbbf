"""The code of the last release, for all tests of upgrades."""

import pytest
from support.release import Release, unpack_release


@pytest.fixture(scope="session")
def release() -> Release:
    """The last release; skips the tests in a clone without its commit."""
    return unpack_release()
