"""What all tests share.

Property tests draw the same examples in every run, so that a change is judged by what it changed and by nothing else.
Look for new ones with `pytest --hypothesis-profile=random`.
"""

import contextlib

from hypothesis import settings

settings.register_profile("fixed", derandomize=True)
settings.register_profile("random", derandomize=False)
settings.load_profile("fixed")


def pytest_configure() -> None:
    """Load triton's LLVM before TensorFlow's: the other order crashes, and only tests have both in one process."""
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401
