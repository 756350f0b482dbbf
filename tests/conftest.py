"""What all tests share.

Property tests draw the same examples in every run, so that a change is judged by what it changed and by nothing else.
Look for new ones with `pytest --hypothesis-profile=random`. No example has a deadline: on a busy machine it would fail
by time alone, and speed is what benchmarks measure.
"""

import contextlib
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from support.secrets import find_leaks

UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fixed", derandomize=True, **UNTIMED)
settings.register_profile("random", derandomize=False, **UNTIMED)
settings.load_profile("fixed")


def pytest_configure() -> None:
    """Load triton's LLVM before TensorFlow's: the other order crashes, and only tests have both in one process.

    ONNX Runtime reports nothing to its maker: tests use it themselves.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def no_secret_in_logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the session if a log that its tests wrote holds a secret that they used."""
    yield
    leaks = find_leaks(tmp_path_factory.getbasetemp())
    assert not leaks, "\n".join(leaks)
