"""Keeping a library's logger silent for the length of a block, in this thread alone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_silent: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def quiet(logger: str) -> Iterator[None]:
    """Drop what a library logs about a broken file: the caller answers with an error or a good result.

    The filter stays on the logger afterwards, but drops nothing outside such a block.

    Args:
        logger: Name of the library's logger.
    """
    logging.getLogger(logger).addFilter(_passes)
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def _passes(record: logging.LogRecord) -> bool:  # noqa: ARG001 - the signature of a logging filter
    return not _silent.get()
