"""Which image and which label file are called alike."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.pairing import names
from cellsparse_common.pairing.folders import IMAGES, LABELS, Place

NO_LABEL = "has no label file"
NO_IMAGE = "has no image"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that may be an image, hold labels, or either."""

    path: str
    """As it was given."""
    name: str
    """Its last part."""
    base: str
    """See `names.base_of`."""
    place: Place
    """What the folders above it say."""

    @property
    def only_label(self) -> bool:
        """Whether it cannot be an image."""
        return names.is_label_only(self.name)

    @property
    def marked(self) -> str:
        """The base of its image, where its name says that it holds labels; else ""."""
        return names.label_base(self.base) or names.label_rest(self.base)


def pair_group(group: list[File], left_out: dict[str, str]) -> list[tuple[File, File]]:
    """Pair the files of one split, and say of the others why they are left out."""
    has_label_folder = any(file.place.role == LABELS for file in group)
    bases = {file.base for file in group} | {names.image_base(file.base) for file in group}
    images, labels = [], []
    for file in group:
        if file.place.role == LABELS:
            labels.append(file)
        elif file.only_label:
            if not (has_label_folder and file.place.role == IMAGES):
                labels.append(file)
        elif file.marked and not has_label_folder:
            labels.append(file)
            if file.marked not in bases:
                images.append(file)
        else:
            images.append(file)
    paired = _match(images, labels)
    takers = {image.base: label.path for image, label in paired}
    used = {file.path for pair in paired for file in pair}
    are_labels = {file.path for file in labels}
    for file in group:
        if file.path not in used:
            is_label = file.path in are_labels or file.only_label
            taker = takers.get(file.base) or takers.get(file.marked)
            left_out[file.path] = NO_IMAGE if is_label else NO_LABEL
            if taker and (is_label or file.marked):
                left_out[file.path] = f"is not used, as {taker} holds the labels of its image"
    return paired


Key = Callable[[File], str]


def _stem(file: File) -> str:
    return names.stem_of(file.name)


def _composed(file: File) -> str:
    return names.composed(_stem(file))


def _base(file: File) -> str:
    return file.base


def _label_base(file: File) -> str:
    return names.label_base(file.base)


def _label_image(file: File) -> str:
    return "" if file.only_label else names.label_base(file.base)


def _label_rest(file: File) -> str:
    return names.label_rest(file.base)


def _image_base(file: File) -> str:
    return names.image_base(file.base)


def _image_rest(file: File) -> str:
    return names.image_rest(file.base)


_RULES: tuple[tuple[Key, Key], ...] = (
    (_stem, _stem),
    (_composed, _composed),
    (_base, _base),
    (_base, _label_image),
    (_base, _label_base),
    (_image_base, _label_base),
    (_image_base, _base),
    (_image_rest, _label_rest),
    (_base, _label_rest),
    (_image_rest, _base),
)
"""How an image and its label file are called alike, the closest first: what an earlier rule pairs, no later one sees.
Cellpose writes `_seg.npy` beside `_cp_masks.png`; the image is preferred, as other tools read it too."""


def _match(images: list[File], labels: list[File]) -> list[tuple[File, File]]:
    """Pair images with label files by the first rule under which they are called alike.

    Raises:
        InvalidArgument: Two images, or two label files, are called alike under the same rule.
    """
    paired: list[tuple[File, File]] = []
    used: set[str] = set()
    for of_image, of_label in _RULES:
        by_image, by_label = (_by_key(files, key, used) for files, key in ((images, of_image), (labels, of_label)))
        for name in [name for name in by_label if name in by_image]:
            ours = [file for file in by_image[name] if file.path not in used]
            theirs = [file for file in by_label[name] if file.path not in used and file not in ours]
            if not ours or not theirs:
                continue
            for several, what, other in ((ours, "image", theirs), (theirs, "label file", ours)):
                if len(several) > 1:
                    first, second = sorted(file.path for file in several)[:2]
                    raise InvalidArgument(
                        f"{first} and {second} have the same name, as either may be the {what} of {other[0].path}; "
                        "keep one of them."
                    )
            paired.append((ours[0], theirs[0]))
            used |= {ours[0].path, theirs[0].path}
    return paired


def _by_key(files: list[File], key: Key, used: set[str]) -> dict[str, list[File]]:
    found: dict[str, list[File]] = defaultdict(list)
    for file in files:
        if file.path not in used and (name := key(file)):
            found[name].append(file)
    return found
