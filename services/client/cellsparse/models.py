"""Models: predict and evaluate."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cellsparse import enum_names
from cellsparse.choices import is_read_here, read_file_here
from cellsparse.connection import Connection
from cellsparse.errors import CellsparseError, Internal, InvalidArgument
from cellsparse.in_flight import in_order
from cellsparse.items import FILES, Content, image_bytes
from cellsparse.sources import file_size, parts_of, read_parts
from cellsparse_common.imaging.label_formats import FORMATS, LabelOutput, encode
from cellsparse_common.rpc.retries import repeated
from cellsparse_common.rpc.rules import rules_of
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2

if TYPE_CHECKING:
    from cellsparse_common.imaging.types import Labels

PREDICT_SECONDS = 900.0
PREDICT_FILE_SECONDS = 6 * 3600.0
IN_ONE_MESSAGE = 8 * 2**20
"""Largest image file that is sent in one message; those of large images, and their results, may not fit into one."""
EVALUATE_SECONDS = 6 * 3600.0
MOST_PARALLEL = 64
"""Most images of one call of `predict_many` that are with the server at the same time."""
_FIELDS = trainer_pb2.PredictRequest.DESCRIPTOR.fields_by_name
LARGEST_CHANNEL, LARGEST_MIN_PIXELS = (int(rules_of(_FIELDS[name]).max) for name in ("channel", "min_pixels"))

Channels: TypeAlias = Sequence[int | str] | str
"""Channels of an image: numbers from 0 or names, or a text with commas between; "mean" alone is the mean of all."""

_BY_SERVER = ("geojson", "roi")
"""Formats that the server writes, as they need more than the client has. The others are written here from the label
image: a `_seg.npy` of a large image would not fit into an answer."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The result of one image."""

    image: Content
    """The image as it was given."""
    cells: int = 0
    """Number of cells found."""
    output: "Labels | bytes | None" = None
    """Labels of axes YX or ZYX for format "tiff", else the content of the file; None if it failed."""
    spacing: tuple[float, ...] = ()
    """Micrometres per pixel along each axis of the labels; empty if the image's file does not state them."""
    error: CellsparseError | None = None
    """The error; None if it succeeded."""


def predict(
    connection: Connection,
    model_id: str,
    image: Content,
    *,
    channel: int | None = None,
    channels: Channels | None = None,
    min_pixels: int = 0,
    format: str = "tiff",  # noqa: A002
    axes: str = "",
) -> Prediction:
    """Segment one image (see `cellsparse.Client.predict`).

    Raises:
        CellsparseError: An option is out of range, or the image or the service failed.
    """
    _check(channel, min_pixels, format)
    request = trainer_pb2.PredictRequest(
        model_id=model_id,
        axes=axes if isinstance(image, FILES) else "",  # an array becomes a file that names them
        channel=channel,
        channels=channel_texts(channels),
        min_pixels=min_pixels,
        format=FORMATS[format if format in _BY_SERVER else "tiff"].number,
    )
    if is_read_here(image):
        sent: Content = read_file_here(Path(str(image)), connection.max_pixels(), axes)
        request.axes = ""
    else:
        sent = image
    if isinstance(sent, str | Path) and file_size(sent) > IN_ONE_MESSAGE:
        path = sent
        answer = _predict_file(connection, request, lambda: read_parts(path))
    else:
        data = image_bytes(sent, axes)
        if len(data) > IN_ONE_MESSAGE:
            answer = _predict_file(connection, request, lambda: parts_of(data))
        else:
            request.image = data
            answer = connection.call("Predict", request, timeout=PREDICT_SECONDS)
    if format in _BY_SERVER:
        return Prediction(image=image, cells=answer.cells, output=answer.output)
    from cellsparse.arrays import read_labels

    label, spacing = read_labels(answer.label, connection.max_pixels(), stack=True)
    output: Labels | bytes = label
    if format != "tiff":
        name = Path(image).name if isinstance(image, str | Path) else "image.tif"
        output = encode(format, LabelOutput(label=label, spacing=spacing, image_name=name))
    return Prediction(image=image, cells=answer.cells, output=output, spacing=spacing)


def _predict_file(
    connection: Connection, request: trainer_pb2.PredictRequest, read: Callable[[], Iterator[bytes]]
) -> trainer_pb2.PredictResponse:
    """Send an image in parts and put the parts of the answer together.

    Args:
        connection: The connection to use.
        request: What to ask for.
        read: Begins to read the image's file; again whenever a busy server has refused it.
    """
    make = orchestrator_pb2.PredictFileRequest

    def messages() -> Iterator[orchestrator_pb2.PredictFileRequest]:
        size = 0
        yield make(header=request)
        for part in read():
            size += len(part)
            yield make(chunk=part)
        yield make(end=orchestrator_pb2.PredictFileEnd(size=size))

    def once(seconds: float) -> tuple[trainer_pb2.PredictResponse, bytearray]:
        answer, file, size = trainer_pb2.PredictResponse(), bytearray(), -1
        for message in connection.exchange("PredictFile", messages(), timeout=seconds):
            if message.WhichOneof("part") == "header":
                answer, size = message.header.answer, message.header.size
            else:
                file += message.chunk
        if len(file) != size:
            raise Internal("The result did not arrive as it was sent; ask again.")
        return answer, file

    answer, file = repeated(once, PREDICT_FILE_SECONDS)
    if request.format == FORMATS["tiff"].number:
        answer.label = bytes(file)
    else:
        answer.output = bytes(file)
    return answer


def predict_many(
    connection: Connection,
    model_id: str,
    images: Iterable[Content],
    *,
    channel: int | None = None,
    channels: Channels | None = None,
    min_pixels: int = 0,
    format: str = "tiff",  # noqa: A002
    axes: str = "",
    parallel: int = 1,
) -> Iterator[Prediction]:
    """Segment images, several at a time (see `cellsparse.Client.predict_many`).

    Raises:
        InvalidArgument: An option is out of range; at once, not for every image.
    """
    _check(channel, min_pixels, format)
    if not 1 <= parallel <= MOST_PARALLEL:
        raise InvalidArgument(f"parallel is {parallel}; allowed: 1 to {MOST_PARALLEL}.", "parallel")
    of_thread = threading.local()

    def own_connection() -> Connection:
        if parallel == 1:
            return connection
        if not hasattr(of_thread, "connection"):
            of_thread.connection = connection.another()
            opened.append(of_thread.connection)
        found: Connection = of_thread.connection
        return found

    def one(image: Content) -> Prediction:
        try:
            return predict(
                own_connection(),
                model_id,
                image,
                channel=channel,
                channels=channels,
                min_pixels=min_pixels,
                format=format,
                axes=axes,
            )
        except CellsparseError as error:
            return Prediction(image=image, error=error)

    opened: list[Connection] = []

    def results() -> Iterator[Prediction]:
        try:
            yield from in_order(one, images, parallel)
        finally:
            for each in opened:
                each.close()  # calls that still run fail

    return results()


def channel_texts(channels: Channels | None) -> list[str]:
    """Return channels as the texts that requests hold; a text has commas between them."""
    entries = channels.split(",") if isinstance(channels, str) else list(channels or ())
    return [str(entry).strip() for entry in entries if str(entry).strip()]


def _check(channel: int | None, min_pixels: int, form: str) -> None:
    """Refuse values that no request can hold or no server accepts."""
    if form not in FORMATS:
        raise InvalidArgument(f"format is {form!r}; allowed: {', '.join(FORMATS)}.", "format")
    for name, value, largest in (
        ("channel", channel or 0, LARGEST_CHANNEL),
        ("min_pixels", min_pixels, LARGEST_MIN_PIXELS),
    ):
        if not 0 <= value <= largest:
            raise InvalidArgument(f"{name} is {value}; allowed: 0 to {largest:,}.", name)


def evaluate(
    connection: Connection,
    model_id: str,
    dataset_id: str,
    *,
    split: str = "test",
    ious: Sequence[float] = (),
    channels: Channels | None = None,
    on_progress: Callable[[trainer_pb2.EvaluateResponse], None] | None = None,
) -> trainer_pb2.EvaluationReport:
    """Score a model on one split of a dataset (see `cellsparse.Client.evaluate`)."""
    number = enum_names.number(common_pb2.Split.DESCRIPTOR, split, "split")
    request = trainer_pb2.EvaluateRequest(
        model_id=model_id,
        dataset_id=dataset_id,
        split=number,
        ious=ious,
        channels=channel_texts(channels),
    )
    answer = None
    for answer in connection.stream("Evaluate", request, timeout=EVALUATE_SECONDS):
        if on_progress is not None:
            on_progress(answer)
    if answer is None or not answer.HasField("report"):
        raise Internal("The orchestrator ended the stream without a report.")
    report: trainer_pb2.EvaluationReport = answer.report
    return report
