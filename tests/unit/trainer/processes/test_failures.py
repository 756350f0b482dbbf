from dataclasses import replace

import pytest
from support.cellsparse_fake.config import resolve

from cellsparse_common.errors import Internal, InvalidArgument, NotFound, StorageError
from cellsparse_proto.v1 import common_pb2, trainer_pb2
from cellsparse_trainer.processes.failures import explain


class OutOfMemoryError(RuntimeError):
    """Named as torch names its own."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), common_pb2.FAILURE_REASON_OUT_OF_MEMORY),
        (OutOfMemoryError("CUDA"), common_pb2.FAILURE_REASON_OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), common_pb2.FAILURE_REASON_OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), common_pb2.FAILURE_REASON_OUT_OF_MEMORY),
        (RuntimeError("Failed to allocate memory for convolution"), common_pb2.FAILURE_REASON_OUT_OF_MEMORY),
        (StorageError("The store is out of memory."), common_pb2.FAILURE_REASON_STORAGE),
        (FloatingPointError("The loss is nan at step 3."), common_pb2.FAILURE_REASON_USER_ERROR),
        (InvalidArgument("k is 0."), common_pb2.FAILURE_REASON_USER_ERROR),
        (NotFound("No such dataset."), common_pb2.FAILURE_REASON_USER_ERROR),
        (StorageError("The store is full."), common_pb2.FAILURE_REASON_STORAGE),
        (Internal("Oh."), common_pb2.FAILURE_REASON_INTERNAL),
        (KeyError("x"), common_pb2.FAILURE_REASON_INTERNAL),
    ],
)
def test_reasons(error, reason):
    found, sentence = explain(error, None)
    assert found == reason
    assert sentence


def test_memory_names_batch_and_crop():
    plan = resolve(trainer_pb2.TrainingSettings(), 1).plan
    assert "batch 2 and crop 32;" in explain(MemoryError(), plan)[1]
    assert "batch 2 and crop 32, 16 planes deep;" in explain(MemoryError(), replace(plan, crop_depth=16))[1]
