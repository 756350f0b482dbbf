"""What the names of folders say: the split, and whether images or labels lie in them."""

import re
import unicodedata
from dataclasses import dataclass

SPLITS = ("train", "val", "test")
IMAGES, LABELS = "images", "labels"

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_ROLE_WORDS = {
    **dict.fromkeys(("image", "images", "img", "imgs", "raw"), IMAGES),
    **dict.fromkeys(("mask", "masks", "label", "labels", "annotation", "annotations", "gt", "groundtruth"), LABELS),
    **dict.fromkeys(("seg", "segmentation", "segmentations", "instances", "roi", "rois", "roiset", "roisets"), LABELS),
}
_FILLERS = frozenset({"set", "data", "dataset", "cp"})
_GROUND_TRUTH = re.compile(r"ground[_\s.-]truth")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a file lies."""

    split: str
    """"train", "val" or "test"; "" if no folder says it."""
    role: str
    """`IMAGES` or `LABELS`; "" if no folder says it."""


def meaning(folder: str) -> tuple[str, str] | None:
    """Return the split and the role that the name of a folder means, "" for none; None if it means neither.

    Case does not count, and both may stand in one name, as in `train_images`.
    """
    text = _GROUND_TRUTH.sub("groundtruth", unicodedata.normalize("NFKC", folder).casefold())
    words = [word for word in re.split(r"[_\s.-]+", text) if word and word not in _FILLERS]
    splits = [_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS]
    roles = [_ROLE_WORDS[word] for word in words if word in _ROLE_WORDS]
    if not words or len(splits) + len(roles) != len(words) or len(splits) > 1 or len(roles) > 1:
        return None
    return "".join(splits), "".join(roles)


def place_of(folders: tuple[str, ...]) -> Place | None:
    """Return what the folders above a file say together; None if one of them says nothing, or two the same."""
    split = role = ""
    for folder in folders:
        found = meaning(folder)
        if found is None or (split and found[0]) or (role and found[1]):
            return None
        split, role = split or found[0], role or found[1]
    return Place(split=split, role=role)
