"""Whatever a framework raises about a file of a model becomes one sentence."""

import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.models import imports


class Broken:
    """A framework whose codec finds an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def import_model(self, *_: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (zlib.error("Error -3: invalid distance"), "Error -3: invalid distance."),
        (ValueError("Two lines.\nof text"), "Two lines."),
        (KeyError(), "KeyError."),
    ],
)
def test_a_framework_that_fails_is_one_sentence(error, reason):
    spec = SimpleNamespace(name="unet", framework=lambda: Broken(error))
    with pytest.raises(InvalidArgument) as caught:
        imports._import(spec, Path("a"), Path("b"), trainer_pb2.ImportSettings(), None, "cpu")
    assert caught.value.message == f"The file holds no unet model: {reason}"
