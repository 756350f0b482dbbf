"""Models: predict and evaluate."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from cellsparse import words
from cellsparse.connection import Connection
from cellsparse.errors import Internal
from cellsparse.items import Content, image_bytes
from cellsparse_common.images import decode_image
from cellsparse_proto.v1 import common_pb2, trainer_pb2

PREDICT_SECONDS = 900.0
EVALUATE_SECONDS = 6 * 3600.0
MAX_PIXELS = 2**26


def predict(connection: Connection, model_id: str, image: Content) -> npt.NDArray[np.int32]:
    """Segment one image (see `cellsparse.Client.predict`)."""
    request = trainer_pb2.PredictRequest(model_id=model_id, image=image_bytes(image))
    answer = connection.call("Predict", request, timeout=PREDICT_SECONDS)
    return decode_image(answer.label, max_pixels=MAX_PIXELS, field="label").array.astype(np.int32)


def evaluate(
    connection: Connection,
    model_id: str,
    dataset_id: str,
    *,
    split: str = "test",
    ious: Sequence[float] = (),
    on_progress: Callable[[trainer_pb2.EvaluateResponse], None] | None = None,
) -> trainer_pb2.EvaluationReport:
    """Score a model on one split of a dataset (see `cellsparse.Client.evaluate`)."""
    number = words.number(common_pb2.Split.DESCRIPTOR, split, "split")
    request = trainer_pb2.EvaluateRequest(
        model_id=model_id,
        dataset_id=dataset_id,
        split=number,
        ious=ious,
    )
    answer = None
    for answer in connection.stream("Evaluate", request, timeout=EVALUATE_SECONDS):
        if on_progress is not None:
            on_progress(answer)
    if answer is None or not answer.HasField("report"):
        raise Internal("The orchestrator ended the stream without a report.")
    report: trainer_pb2.EvaluationReport = answer.report
    return report
