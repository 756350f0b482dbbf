"""What all tests share."""

import contextlib


def pytest_configure() -> None:
    """Load triton's LLVM before TensorFlow's: the other order crashes, and only tests have both in one process."""
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401
