"""Properties of dataset items that follow from their message alone, so that clients need no store for them."""

from collections.abc import Iterable

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import dataset_pb2


def is_stack(item: dataset_pb2.DatasetItem) -> bool:
    """Return whether an item is a stack of planes rather than one plane."""
    return item.axes.startswith("Z")


def label_shape(item: dataset_pb2.DatasetItem) -> tuple[int, ...]:
    """Return the shape of an item's label image: (height, width), of a stack (planes, height, width)."""
    return tuple(item.shape)[: len(item.axes.rstrip("C"))]


def refuse_mixture(items: Iterable[dataset_pb2.DatasetItem], field: str) -> None:
    """Refuse a mixture of 2D images and stacks.

    Args:
        items: Items that are trained on, or uploaded, together.
        field: Name of the request's field.

    Raises:
        InvalidArgument: It is a mixture; names one item of each kind.
    """
    first: dict[bool, str] = {}
    for item in items:
        first.setdefault(is_stack(item), item.name)
    if len(first) == 2:
        raise InvalidArgument(
            f"Item {first[True]!r} is a stack and item {first[False]!r} is 2D; a dataset to train on holds "
            "either stacks or 2D images: make two of it.",
            field,
        )
