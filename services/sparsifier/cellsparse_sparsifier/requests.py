"""Requests: the proto's settings as those that the pure functions take, with defaults."""

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import common_pb2, sparsifier_pb2
from cellsparse_sparsifier.background import Background
from cellsparse_sparsifier.selection import Mode
from cellsparse_sparsifier.sparsify import Settings

DEFAULT_DISTANCE = 10
"""Pixels, where the request names none: the paper's shift."""

DEFAULT_SPLITS = (common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_VAL)
"""Splits to sparsify, where the request names none."""

NEAR = (Background.SHIFTED, Background.RING)
"""The rules that have a distance."""


def read_settings(message: sparsifier_pb2.SparsifySettings) -> Settings:
    """Return the settings of a request whose field rules hold.

    Raises:
        InvalidArgument: A combination that the field rules cannot see.
    """
    amount = message.WhichOneof("amount")
    if amount is None:
        raise InvalidArgument(
            "settings.amount is missing; set one of k, total_cells and total_percent.", "settings.amount"
        )
    try:
        return Settings(
            mode=Mode(message.mode),
            background=Background(message.background),
            distance=message.background_distance if message.HasField("background_distance") else DEFAULT_DISTANCE,
            seed=message.seed,
            channel=message.channel.strip(),
            **{amount: getattr(message, amount)},
        )
    except ValueError as error:
        raise InvalidArgument(f"settings cannot be used: {error}.", "settings") from error


def settled(message: sparsifier_pb2.SparsifySettings) -> sparsifier_pb2.SparsifySettings:
    """Return the settings with defaults spelled out and what has no effect left out: equal results, equal settings."""
    result = sparsifier_pb2.SparsifySettings()
    result.CopyFrom(message)
    settings = read_settings(message)
    result.ClearField("background_distance")
    if settings.background in NEAR:
        result.background_distance = settings.distance
    if settings.mode is not Mode.RANDOM:
        result.ClearField("seed")
    return result


def read_splits(request: sparsifier_pb2.SparsifyDatasetRequest) -> set[int]:
    """Return the splits to sparsify.

    Raises:
        InvalidArgument: One of them is SPLIT_UNSPECIFIED.
    """
    if common_pb2.SPLIT_UNSPECIFIED in request.splits:
        raise InvalidArgument("splits holds SPLIT_UNSPECIFIED; allowed: SPLIT_TRAIN, SPLIT_VAL, SPLIT_TEST.", "splits")
    return set(request.splits or DEFAULT_SPLITS)
