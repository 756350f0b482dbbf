"""Datasets: upload, list, export, sparsify."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cellsparse import dataset_export, datasets
from cellsparse.calls.base import Calls
from cellsparse.dataset_export import ExportedItem
from cellsparse.datasets import ItemArrays
from cellsparse.items import Items
from cellsparse.training_settings import sparsify_settings
from cellsparse_proto.v1 import dataset_pb2

if TYPE_CHECKING:
    pass


class DatasetCalls(Calls):
    """Datasets: upload, list, export, sparsify."""

    def create_dataset(
        self,
        name: str,
        items: Items,
        label_kind: str = "instances",
        *,
        on_report: Callable[[dataset_pb2.UploadReport], None] | None = None,
    ) -> dataset_pb2.Dataset:
        """Upload a dataset. Nothing is stored unless all of it is valid; an error names all items that are not.

        Args:
            name: Display name.
            items: `Item`s or (name, split, image, label) tuples, read one at a time, so that an iterator may be of any
                length. Image and label are paths, file contents or arrays. All are 2D, or all are stacks of planes.
                `Item` also takes `axes`, `spacing` and `channels`. CZI, LIF and ND2 files (with `cellsparse[vendor]`)
                and OME-Zarr folders are read on this machine, `Stored` images in the orchestrator's store.
            label_kind: "instances", "binary" or "offset_by_one" (see `LabelKind` in dataset.proto).
            on_report: Called at the end with what was read, per item: cells, background and unlabelled pixels, shapes
                that are no labels, and sentences on these (see `UploadReport` in dataset.proto).
        """
        made, report = datasets.create(self.connection, name, items, label_kind)
        if on_report is not None:
            on_report(report)
        return made

    def datasets(self) -> Iterator[dataset_pb2.Dataset]:
        """Yield all datasets, newest first."""
        return datasets.listed(self.connection)

    def dataset(self, dataset_id: str) -> dataset_pb2.Dataset:
        """Return one dataset."""
        return datasets.get(self.connection, dataset_id)

    def dataset_items(self, dataset_id: str) -> Iterator[dataset_pb2.DatasetItem]:
        """Yield a dataset's items, in their order."""
        return datasets.items(self.connection, dataset_id)

    def dataset_item(self, dataset_id: str, item: str) -> ItemArrays:
        """Fetch one item's image and labels."""
        return datasets.item_arrays(self.connection, dataset_id, item)

    def export_dataset(
        self,
        dataset_id: str,
        folder: str | Path,
        *,
        format: str = "tiff",  # noqa: A002 - the option's name
        splits: Sequence[str] = (),
        force: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[ExportedItem]:
        """Write a dataset's images and labels into a folder, from which an import makes the same dataset again.

        Args:
            dataset_id: Its id.
            folder: Gets `train/images/NAME.tif`, `train/masks/NAME.tif` and so on. Labels of format "seg" lie beside
                the image, where Cellpose looks for them.
            format: Of the labels: "tiff", "ome-tiff", "ome-zarr", "ome-zarr-0.4", "seg", "coco", "geojson" or "roi".
                The last three number the cells anew, in their order; "coco" holds 2D images only.
            splits: Which to write; empty: all.
            force: Whether files that are there are replaced.
            on_progress: Called with the numbers of written and of all items.

        Returns:
            The files of each item.

        Raises:
            InvalidArgument: Unknown format or split, stacks in a format of outlines, or a folder that cannot be used.
            AlreadyExists: A file is there already; nothing is written.
        """
        return dataset_export.export(
            self.connection,
            dataset_id,
            Path(folder),
            format_=format,
            splits=splits,
            force=force,
            on_progress=on_progress,
        )

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset that no unfinished run needs."""
        datasets.delete(self.connection, dataset_id)

    def sparsify(
        self,
        dataset: str,
        *,
        mode: str = "minmax",
        k: int | None = None,
        background: str = "shifted",
        distance: int | None = None,
        total_cells: int | None = None,
        percent: float | None = None,
        seed: int = 0,
        channel: int | str | None = None,
        splits: Sequence[str] = (),
        name: str = "",
        on_progress: Callable[[dataset_pb2.CreateSparseDatasetResponse], None] | None = None,
    ) -> dataset_pb2.Dataset:
        """Create a dataset in which the chosen splits keep a few cells. Other splits are copied unchanged.

        Args:
            dataset: Dataset id.
            mode: "min", "max", "minmax" or "random".
            k: Cells per image: k of the mode, so 2k in all. Give this or `total_cells` or `percent`.
            background: "none", "shifted", "ring" or "all".
            distance: Pixels, for shifted and ring; not given: 10.
            total_cells: Cells over all sparsified items together.
            percent: Percent of the candidate cells over all sparsified items together, above 0 to 100.
            seed: Seed of mode random.
            channel: Channel that intensity is taken from, a number from 0 or a name; not given: the mean of all.
            splits: Of "train", "val", "test"; empty: train and val.
            name: Name of the new dataset; empty: made from the source's and the settings.
            on_progress: Called with every answer: `items_done`, `items_total`, `warnings`.
        """
        settings = sparsify_settings(
            mode=mode,
            k=k,
            background=background,
            distance=distance,
            total_cells=total_cells,
            percent=percent,
            seed=seed,
            channel=channel,
        )
        return datasets.sparsify(self.connection, dataset, settings, splits=splits, name=name, on_progress=on_progress)
