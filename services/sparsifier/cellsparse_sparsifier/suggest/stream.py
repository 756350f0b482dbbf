"""The stream of a SuggestCells call: images in, their candidates out, one image in memory at a time."""

import zlib
from collections.abc import Callable, Iterator

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.images import decode_image
from cellsparse_common.imaging.types import Labels
from cellsparse_proto.v1 import sparsifier_pb2, suggestion_pb2
from cellsparse_sparsifier.suggest.candidates import Candidates, find_candidates, only_known
from cellsparse_sparsifier.suggest.choose import Method, Suggestion, suggest, used_method

Request = sparsifier_pb2.SuggestCellsRequest
Response = sparsifier_pb2.SuggestCellsResponse

MOST_IMAGES = 1000
"""Most images of a call."""


def answer(
    requests: Iterator[Request],
    *,
    max_pixels: int,
    max_file_bytes: int,
    check: Callable[[], None],
) -> Response:
    """Read a stream and choose what to mark next.

    Args:
        requests: The messages; each keeps its field rules.
        max_pixels: Largest image, height x width.
        max_file_bytes: Largest file.
        check: Called before each image; raises what ends the work early.

    Raises:
        InvalidArgument: The stream is not a header, images and an end, or a file does not fit.
        ResourceExhausted: An image or the number of images is too large.
    """
    first = next(requests, None)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidArgument("The first message must be the header.", "header")
    header = first.header
    found: list[Candidates] = []
    predicted = False
    for message in requests:
        part = message.WhichOneof("part")
        if part == "end":
            break
        if part != "image":
            raise InvalidArgument("There is a second header; allowed: one, in the first message.", "header")
        if len(found) == MOST_IMAGES:
            raise ResourceExhausted(f"There are more than {MOST_IMAGES} images; allowed: at most as many.", "image")
        check()
        found.append(_candidates(message.image, header.seed, max_pixels, max_file_bytes))
        predicted = predicted or bool(message.image.predictions)
    else:
        raise InvalidArgument("The stream ended without its last message, `end`: it broke off.", "end")
    _compare(found, message.end.images)
    method = Method(header.method or suggestion_pb2.SUGGESTION_METHOD_AUTO)
    chosen = suggest(
        found,
        method=method,
        count=header.count,
        backgrounds=header.backgrounds,
        seed=header.seed,
        predicted=predicted,
        labelled=header.labelled_cells if header.HasField("labelled_cells") else None,
    )
    return Response(
        suggestions=[_message(each) for each in chosen],
        method=suggestion_pb2.SuggestionMethod.Name(used_method(method, predicted=predicted).value),
        candidates=sum(len(each) for each in found),
    )


def _candidates(image: sparsifier_pb2.SuggestCellsImage, seed: int, max_pixels: int, max_bytes: int) -> Candidates:
    for field in ("image", "label"):
        _check_size(getattr(image, field), f"image.{field}", image.name, max_bytes)
    pixels = decode_image(image.image, max_pixels=max_pixels, field=f"image {image.name!r}").array
    shape = pixels.shape[:2]
    label: Labels | None = None
    if image.label:
        label = _labels(image.label, shape, max_pixels, f"label of {image.name!r}")
    predictions = []
    for number, data in enumerate(image.predictions):
        _check_size(data, f"image.predictions[{number}]", image.name, max_bytes)
        predictions.append(_labels(data, shape, max_pixels, f"prediction {number} of {image.name!r}"))
    try:
        found = find_candidates(image.name, pixels, label, predictions, seed=seed)
    except ValueError as error:
        raise InvalidArgument(f"Image {image.name!r} cannot be looked at: {error}.", "image") from error
    return only_known(found) if image.only_known else found


def _labels(data: bytes, shape: tuple[int, ...], max_pixels: int, field: str) -> Labels:
    """Decode a label image that may hold no cell at all, and cells of several parts."""
    image = decode_image(data, max_pixels=max_pixels, field=field, labels=True)
    if image.array.shape != shape:
        has, wants = (" x ".join(map(str, size)) for size in (image.array.shape, shape))
        raise InvalidArgument(f"The {field} is {has} pixels, its image {wants}; both must have the same size.", field)
    if image.array.dtype.kind not in "iu":
        raise InvalidArgument(f"The {field} holds {image.array.dtype} values; allowed: an integer TIFF or PNG.", field)
    return image.array.astype("int32")


def _check_size(data: bytes, field: str, name: str, allowed: int) -> None:
    if len(data) > allowed:
        raise ResourceExhausted(
            f"A file of image {name!r} has {len(data):,} bytes; allowed: at most {allowed // 2**20} MiB.", field
        )


def _compare(found: list[Candidates], announced: int) -> None:
    """Refuse a stream with other images than it says."""
    if len(found) != announced:
        raise InvalidArgument(f"The stream had {len(found)} images, its end says {announced}.", "end.images")
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidArgument(f"Two images are named {twice!r}; names must differ.", "image.name")


def _message(chosen: Suggestion) -> suggestion_pb2.Suggestion:
    values = chosen.patch.values
    return suggestion_pb2.Suggestion(
        image_id=chosen.image,
        kind=suggestion_pb2.SUGGESTION_KIND_CELL if chosen.cell else suggestion_pb2.SUGGESTION_KIND_BACKGROUND,
        x=chosen.patch.x,
        y=chosen.patch.y,
        width=values.shape[1],
        height=values.shape[0],
        data=zlib.compress(values.tobytes()),
        score=chosen.score,
        reason=chosen.reason,
    )
