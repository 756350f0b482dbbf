"""Folders of images and label files, paired by name (see `cellsparse_common.pairing`)."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellsparse.errors import InvalidArgument
from cellsparse.items import Item
from cellsparse.sources import is_folder, read_all
from cellsparse.vendor import READERS
from cellsparse_common.pairing.pairs import pair_files
from cellsparse_common.pairing.splits import DEFAULT_FRACTIONS

DEPTH = 4
"""Folders that are looked into, one below the other: more mean nothing."""
MAX_FILES = 100_000
"""Most files and folders that are looked at."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Content of a folder."""

    items: list[Item]
    """Images with their labels, as paths, sorted by split and name."""
    left_out: dict[Path, str]
    """Files that are not used, and why."""

    @property
    def unmatched(self) -> list[Path]:
        """Files that are not used."""
        return list(self.left_out)


def read_folder(root: Path, fractions: Sequence[float] = DEFAULT_FRACTIONS) -> Pairs:
    """Pair the images and label files below a folder.

    Args:
        root: The folder.
        fractions: Shares of train, val and test for files that lie in no folder of a split; sum 1.

    Raises:
        InvalidArgument: No such folder, no pair at all, or two files for one name.
    """
    return _pair({path.relative_to(root).as_posix(): path for path in _files(root)}, fractions, str(root))


def read_pair_of_folders(images: Path, masks: Path, fractions: Sequence[float] = DEFAULT_FRACTIONS) -> Pairs:
    """Pair the files of two folders and split them.

    Raises:
        InvalidArgument: No such folder, no pair at all, or two files for one name.
    """
    if is_folder(images) and is_folder(masks) and images.samefile(masks):
        return read_folder(images, fractions)
    found = {
        f"{role}/{path.relative_to(root).as_posix()}": path
        for role, root in (("images", images), ("masks", masks))
        for path in _files(root)
    }
    return _pair(found, fractions, str(images))


def parse_fractions(text: str) -> tuple[float, ...]:
    """Return "0.6,0.2,0.2" as numbers.

    Raises:
        InvalidArgument: It holds something else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidArgument(
            f"--split is {text!r}; allowed: three shares train,val,test, such as 0.6,0.2,0.2."
        ) from error


def _pair(found: dict[str, Path], fractions: Sequence[float], where: str) -> Pairs:
    paths = list(found)
    parts: dict[str, bytes] = {}
    if any(path.lower().endswith(".json") for path in paths):
        from cellsparse_common.pairing.coco_files import spread  # loads NumPy

        paths, parts = spread(paths, lambda path: read_all(found[path]))
    pairing = pair_files(paths, fractions, where=where, more_images=tuple(READERS))
    items = [
        Item(
            name=pair.name, split=pair.split, image=found[pair.image], label=parts.get(pair.label) or found[pair.label]
        )
        for pair in pairing.pairs
    ]
    left_out = {found.get(path, Path(path)): why for path, why in pairing.left_out.items()}
    return Pairs(items=items, left_out=left_out)


def _files(root: Path) -> Iterator[Path]:
    """Yield the files in a folder and in those below it, sorted.

    Raises:
        InvalidArgument: It is no folder, cannot be read, or holds too many files.
    """
    try:
        if not root.is_dir():
            raise InvalidArgument(f"{root} is not a folder.")
        count = 0
        for folder, below, names in os.walk(root, onerror=_refuse, followlinks=True):
            for name in sorted(below):
                if name.lower().endswith(".zarr"):  # a folder that is one image
                    yield Path(folder, name)
            below[:] = [name for name in below if not name.lower().endswith(".zarr")]
            deep = len(Path(folder).relative_to(root).parts) >= DEPTH
            below[:] = [] if deep else sorted(name for name in below if not name.startswith("."))
            count += len(below) + len(names)
            if count > MAX_FILES:
                raise InvalidArgument(f"{root} holds more than {MAX_FILES:,} files; give the folder of a dataset.")
            yield from (Path(folder, name) for name in sorted(names))
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{root} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _refuse(error: OSError) -> None:
    raise InvalidArgument(f"{error.filename} cannot be read: {error.strerror or error}.") from error
