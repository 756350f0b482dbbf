"""What goes wrong in the process that segments is said without the framework that it went wrong in."""

import pytest

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_trainer.models.inference import InferenceProcess


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own; a class that the server cannot load stands for a framework's."""

    def __reduce__(self):
        return _unknown, ()


class FrameworkError(OutOfMemoryError):
    """Any other error of a framework."""


def _unknown():
    raise AssertionError("the server loads a framework's class")


def raises(error):
    raise ERRORS[error]


ERRORS = {
    "memory": OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "other": FrameworkError("cuDNN is not loaded"),
    "ours": InvalidArgument("k is 0.", "k"),
}


@pytest.fixture(scope="module")
def process():
    running = InferenceProcess(60)
    yield running
    running.close()


@pytest.mark.parametrize(
    ("error", "found", "words"),
    [
        ("memory", ResourceExhausted, "Memory ran out in the prediction"),
        ("other", RuntimeError, "FrameworkError: cuDNN is not loaded"),
        ("ours", InvalidArgument, "k is 0"),
    ],
)
def test_errors(process, error, found, words):
    with pytest.raises(found, match=words):
        process.call(raises, error, seconds=60)
