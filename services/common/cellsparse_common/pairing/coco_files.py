"""COCO files that hold the labels of many images: one label file for each, under the image's name."""

import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from cellsparse_common.imaging import coco
from cellsparse_common.pairing import names
from cellsparse_common.pairing.folders import LABELS, SPLITS, meaning, place_of


def spread(paths: Iterable[str], read: Callable[[str], bytes]) -> tuple[list[str], dict[str, bytes]]:
    """Replace each COCO file by the label files that it stands for.

    A file that is named like its one image stays. The split is that of the folder, or stands in the file's name
    (`instances_train.json`).

    Args:
        paths: Paths of files below one folder, with "/" between names.
        read: Reads a file.

    Returns:
        The paths, and the content of those that stand for a part of a COCO file.

    Raises:
        InvalidArgument: A COCO file is broken.
    """
    kept: list[str] = []
    parts: dict[str, bytes] = {}
    for path in paths:
        data = read(path) if path.lower().endswith(".json") else b""
        if not coco.is_coco(data):
            kept.append(path)
            continue
        images = coco.split(coco.parse(data, path), path)
        own = names.base_of(PurePosixPath(path).name)
        if len(images) == 1 and names.base_of(next(iter(images))) in (own, names.label_base(own)):
            kept.append(path)
            continue
        folder = _folder(path)
        for name, content in images.items():
            made = f"{folder}{names.stem_of(name)}.json"
            kept.append(made)
            parts[made] = content
    return kept, parts


def _folder(path: str) -> str:
    """Return the folder in which the parts of a file are taken to lie: one of labels, in the file's split."""
    place = place_of(PurePosixPath(path).parts[:-1])
    split = place.split if place else ""
    for word in re.split(r"[^a-z]+", PurePosixPath(path).stem.lower()):
        found = meaning(word) if word else None
        split = split or (found[0] if found and found[0] in SPLITS else "")
    return f"{split}/{LABELS}/" if split else f"{LABELS}/"
