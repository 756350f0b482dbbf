"""Datasets as folders: images beside label files of any format, as `cellsparse dataset import` reads them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellsparse import datasets, enum_names
from cellsparse.connection import Connection
from cellsparse.errors import Internal, InvalidArgument
from cellsparse.targets import check_folder, check_target, make_folder
from cellsparse_common.dataset_items import is_stack
from cellsparse_common.files import replace_file
from cellsparse_common.imaging.label_formats import FORMATS, LabelOutput, encode
from cellsparse_common.pairing.names import item_name
from cellsparse_common.pairing.pairs import pair_files
from cellsparse_proto.v1 import common_pb2, dataset_pb2


@dataclass(frozen=True, kw_only=True)
class ExportedItem:
    """An item's files."""

    name: str
    """Of the item."""
    split: str
    """"train", "val" or "test"."""
    image: Path
    """A TIFF file."""
    label: Path
    """Its labels."""


def export(
    connection: Connection,
    dataset_id: str,
    folder: Path,
    *,
    format_: str,
    splits: Sequence[str] = (),
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[ExportedItem]:
    """Write a dataset's items, one at a time (see `cellsparse.Client.export_dataset`)."""
    if format_ not in FORMATS:
        raise InvalidArgument(f"The format is {format_!r}; allowed: {', '.join(FORMATS)}.", "format")
    wanted = [enum_names.number(common_pb2.Split.DESCRIPTOR, split, "splits") for split in splits]
    check_folder(folder)
    found = [item for item in datasets.items(connection, dataset_id) if not wanted or item.split in wanted]
    if not found:
        where = f" in {', '.join(splits)}" if splits else ""
        raise InvalidArgument(f"Dataset {dataset_id} has no item{where}.", "splits")
    _refuse_stacks(found, format_)
    files = [_files(item, folder, format_) for item in found]
    _check_names(files, folder)
    for entry in files:
        for target in (entry.image, entry.label):
            check_target(target, force)
    for done, entry in enumerate(files):
        if on_progress is not None:
            on_progress(done, len(files))
        _write(connection, dataset_id, entry, format_)
    return files


def _refuse_stacks(found: Sequence[dataset_pb2.DatasetItem], format_: str) -> None:
    """Refuse stacks in a format that does not hold them."""
    readable = [name for name, each in FORMATS.items() if each.stacks]
    stack = next((item.name for item in found if is_stack(item)), None)
    if stack is not None and format_ not in readable:
        raise InvalidArgument(
            f"Item {stack!r} is a stack, whose labels format {format_} does not hold; ask for {', '.join(readable)}.",
            "format",
        )


def _files(item: dataset_pb2.DatasetItem, folder: Path, format_: str) -> ExportedItem:
    """Return where an item's files go."""
    if item_name(item.name) != item.name:  # it becomes a path
        raise Internal(f"The orchestrator names an item {item.name!r}, which no item may be called.")
    split = enum_names.name(common_pb2.Split.DESCRIPTOR, item.split)
    # Cellpose looks for its files beside the image. Pairs of TIFF files have the very same name.
    labels = "images" if format_ == "seg" else "masks"
    ending = ".tif" if format_ == "ome-tiff" else FORMATS[format_].ending
    return ExportedItem(
        name=item.name,
        split=split,
        image=folder / split / "images" / f"{item.name}.tif",
        label=folder / split / labels / f"{item.name}{ending}",
    )


def _check_names(files: Sequence[ExportedItem], folder: Path) -> None:
    """Refuse names that an import would pair, or call, otherwise."""
    paths = [path.relative_to(folder).as_posix() for entry in files for path in (entry.image, entry.label)]
    paired = {(pair.image, pair.label): (pair.name, pair.split) for pair in pair_files(paths).pairs}
    for entry in files:
        pair = (entry.image.relative_to(folder).as_posix(), entry.label.relative_to(folder).as_posix())
        if paired.get(pair) != (entry.name, entry.split):
            raise InvalidArgument(
                f"Item {entry.name!r} is called like a label file or like another item, so that an import would not "
                "find its labels; ask for format tiff.",
                "format",
            )


def _write(connection: Connection, dataset_id: str, entry: ExportedItem, format_: str) -> None:
    from cellsparse.arrays import item_image_file

    item = datasets.item_arrays(connection, dataset_id, entry.name)
    output = LabelOutput(label=item.label, spacing=item.spacing, image_name=entry.image.name, background=True)
    for target, content in ((entry.image, item_image_file(item)), (entry.label, encode(format_, output))):
        make_folder(target.parent)
        replace_file(target, content)
