"""Datasets: upload, list, fetch, sparsify, delete."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cellsparse import choices, dataset_upload, enum_names
from cellsparse.connection import Connection
from cellsparse.errors import CellsparseError, Internal
from cellsparse.items import Item, Items, upload_messages
from cellsparse.uploads import can_resume
from cellsparse_common.dataset_items import is_stack
from cellsparse_common.faults import Faults, merge, spelled_out
from cellsparse_proto.v1 import common_pb2, dataset_pb2, sparsifier_pb2

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cellsparse_common.imaging.types import Labels

__all__ = ["Item", "ItemArrays", "create", "delete", "get", "item_arrays", "items", "listed", "sparsify"]

LONG_SECONDS = 6 * 3600.0


@dataclass(frozen=True, kw_only=True)
class ItemArrays:
    """One item of a dataset, as arrays."""

    name: str
    """Its name."""
    split: str
    """"train", "val" or "test"."""
    image: "npt.NDArray[np.generic]"
    """Axes YX or YXC, of a stack ZYX or ZYXC, in the type it was uploaded in."""
    label: "Labels"
    """Axes YX or ZYX: -1 not labelled, 0 background, n > 0 cell n."""
    spacing: tuple[float, ...] = ()
    """Micrometres per pixel along each axis of the label image; empty if not known."""
    channels: tuple[str, ...] = ()
    """Names of the image's channels; empty if not known."""


def create(
    connection: Connection, name: str, entries: Items, label_kind: str
) -> tuple[dataset_pb2.Dataset, dataset_pb2.UploadReport]:
    """Upload a dataset, one item at a time (see `cellsparse.Client.create_dataset`)."""
    faults = Faults()

    def read(item: Item) -> Item:
        return choices.read_here(item, connection.max_pixels)

    try:
        if can_resume(connection):
            answer = dataset_upload.create(connection, name, entries, label_kind, faults, read)
        else:
            messages = upload_messages(name, entries, label_kind, faults, read)
            answer = connection.upload("CreateDataset", messages, timeout=LONG_SECONDS)
    except CellsparseError as error:
        raise (merge(faults, error) if faults.count else spelled_out(error)) from None
    except Exception:  # of the iterator of items
        if faults.count:
            raise merge(faults, None) from None
        raise
    if faults.count or answer is None:
        raise merge(faults, None)
    return answer.dataset, answer.report


def listed(connection: Connection) -> Iterator[dataset_pb2.Dataset]:
    """Yield all datasets, newest first, page by page."""
    return connection.pages("ListDatasets", dataset_pb2.ListDatasetsRequest, "datasets")


def get(connection: Connection, dataset_id: str) -> dataset_pb2.Dataset:
    """Return one dataset."""
    answer: dataset_pb2.GetDatasetResponse = connection.call(
        "GetDataset", dataset_pb2.GetDatasetRequest(dataset_id=dataset_id)
    )
    return answer.dataset


def items(connection: Connection, dataset_id: str) -> Iterator[dataset_pb2.DatasetItem]:
    """Yield a dataset's items in their order, page by page."""

    def request(page: Any) -> dataset_pb2.ListDatasetItemsRequest:
        return dataset_pb2.ListDatasetItemsRequest(dataset_id=dataset_id, page=page)

    return connection.pages("ListDatasetItems", request, "items")


def item_arrays(connection: Connection, dataset_id: str, item: str) -> ItemArrays:
    """Fetch one item's image and labels."""
    from cellsparse import arrays

    answer = connection.call("GetDatasetItem", dataset_pb2.GetDatasetItemRequest(dataset_id=dataset_id, item=item))
    stack, max_pixels = is_stack(answer.item), connection.max_pixels()
    label, _ = arrays.read_labels(answer.label, max_pixels, stack=stack)
    return ItemArrays(
        name=answer.item.name,
        split=enum_names.name(common_pb2.Split.DESCRIPTOR, answer.item.split),
        image=arrays.read_image(answer.image, max_pixels, stack=stack),
        label=label,
        spacing=tuple(answer.item.spacing),
        channels=tuple(answer.item.channels),
    )


def delete(connection: Connection, dataset_id: str) -> None:
    """Delete a dataset."""
    connection.call("DeleteDataset", dataset_pb2.DeleteDatasetRequest(dataset_id=dataset_id))


def sparsify(
    connection: Connection,
    dataset_id: str,
    settings: sparsifier_pb2.SparsifySettings,
    *,
    splits: Sequence[str] = (),
    name: str = "",
    on_progress: Callable[[dataset_pb2.CreateSparseDatasetResponse], None] | None = None,
) -> dataset_pb2.Dataset:
    """Create a sparse copy of a dataset (see `cellsparse.Client.sparsify`)."""
    request = dataset_pb2.CreateSparseDatasetRequest(
        dataset_id=dataset_id,
        name=name,
        settings=settings,
        splits=[enum_names.number(common_pb2.Split.DESCRIPTOR, split, "splits") for split in splits],
    )
    answer = None
    for answer in connection.stream("CreateSparseDataset", request, timeout=LONG_SECONDS):
        if on_progress is not None:
            on_progress(answer)
    if answer is None or not answer.HasField("dataset"):
        raise Internal("The orchestrator ended the stream without a dataset.")
    made: dataset_pb2.Dataset = answer.dataset
    return made
