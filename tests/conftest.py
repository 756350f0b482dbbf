"""What all tests share.

Property tests draw the same examples in every run, so that a change is judged by what it changed and by nothing else.
Look for new ones with `pytest --hypothesis-profile=random`. No example has a deadline: on a busy machine it would fail
by time alone, and speed is what benchmarks measure.
"""

import contextlib
import os

from hypothesis import HealthCheck, settings

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
