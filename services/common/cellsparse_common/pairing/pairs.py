"""Images and label files, paired by their names: the one rule for folders on a disk and for zip files.

Files lie in folders for images and labels (`images` and `masks`, `img` and `label`), or side by side, where the name
says which is the label file (`cell.tif` and `cell_masks.tif`, `cell.geojson`). Folders of splits (`train`,
`validation`) may stand above or below these, or hold the files themselves. Nothing is left out without a reason.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.pairing import names
from cellsparse_common.pairing.folders import SPLITS, meaning, place_of
from cellsparse_common.pairing.matching import NO_IMAGE, NO_LABEL, File, pair_group
from cellsparse_common.pairing.splits import DEFAULT_FRACTIONS, check_fractions, split_names, without

OTHER_KIND = f"is of an unsupported kind; images are {', '.join(names.IMAGE_SUFFIXES)}, label files " + ", ".join(
    names.LABEL_SUFFIXES
)
OTHER_FOLDER = "lies in a folder that is none of images, masks, train, val and test"
LONGEST_NAME = 255
TOO_LONG = f"has a name of more than {LONGEST_NAME} characters"
HOW = (
    "label files have the image's name and lie in masks/ or labels/ beside images/, or next to the image as "
    "NAME_masks.tif or NAME.geojson, also in train/, val/ and test/"
)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image with its label file."""

    name: str
    """Of the item: valid and unique."""
    split: str
    """"train", "val" or "test"."""
    image: str
    """Path, as it was given."""
    label: str
    """Path, as it was given."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """What was found."""

    pairs: list[Pair]
    """Sorted by split and name."""
    left_out: dict[str, str]
    """Files that are not used: path, and why ("has no image")."""


def pair_files(
    paths: Iterable[str],
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    *,
    where: str = "",
    more_images: Sequence[str] = (),
) -> Pairing:
    """Pair files by their paths alone.

    Folders that hold all others are passed over, as are hidden files and what macOS adds to zip files.

    Args:
        paths: Paths of files below one folder, with "/" between names.
        fractions: Shares of train, val and test for files that lie in no folder of a split.
        where: What holds the files, for messages.
        more_images: Endings of other files that the caller reads as images, in small letters.

    Raises:
        InvalidArgument: There is no pair, or two files claim to be the same.
    """
    check_fractions(fractions)
    left_out: dict[str, str] = {}
    files: dict[str, list[File]] = defaultdict(list)
    for path, parts in _below_wrapper(_usable(paths, left_out, tuple(more_images))):
        place = place_of(parts[:-1])
        if place is None:
            left_out[path] = OTHER_FOLDER
        else:
            files[place.split].append(
                File(path=path, name=parts[-1], base=names.base_of(parts[-1]), place=place),
            )
    found: list[tuple[str, str, str, str]] = []
    for split, group in files.items():
        paired = pair_group(group, left_out)
        found += [(split, names.stem_of(image.name), image.path, label.path) for image, label in paired]
    if not found:
        raise InvalidArgument(_nothing(left_out, where))
    return Pairing(pairs=_named(_with_splits(sorted(found), fractions)), left_out=dict(sorted(left_out.items())))


def _usable(
    paths: Iterable[str], left_out: dict[str, str], more_images: tuple[str, ...]
) -> list[tuple[str, tuple[str, ...]]]:
    """Return the paths of images and label files, with their parts."""
    kept = []
    for path in paths:
        parts = tuple(part for part in PurePosixPath(path).parts if part != "/")
        if not parts or parts[0] == "__MACOSX" or any(part.startswith(".") and part != ".." for part in parts):
            continue
        if len(parts[-1]) > LONGEST_NAME:
            left_out[path] = TOO_LONG
        elif names.is_image_kind(parts[-1]) or names.is_label_only(parts[-1]) or _ends(parts[-1], more_images):
            kept.append((path, parts))
        else:
            left_out[path] = OTHER_KIND
    return kept


def _ends(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings)


def _below_wrapper(kept: list[tuple[str, tuple[str, ...]]]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the paths without folders around all of them, but for those of a split: what all have says nothing."""
    while kept and len({parts[0] for _, parts in kept}) == 1 and all(len(parts) > 1 for _, parts in kept):
        found = meaning(kept[0][1][0])
        if found is not None and found[0]:
            break
        kept = [(path, parts[1:]) for path, parts in kept]
    return kept


def _with_splits(found: list[tuple[str, str, str, str]], fractions: Sequence[float]) -> list[tuple[str, str, str, str]]:
    """Draw a split for the pairs that lie in no folder of one."""
    named = {split for split, *_ in found if split}
    free = [image for split, _, image, _ in found if not split]
    if not free:
        return found
    if "train" in named:
        raise InvalidArgument(
            f"{free[0]} lies beside train/, so that nobody knows its split; move it to train/, val/ or test/."
        )
    drawn = iter(split_names(len(free), without(fractions, named) if named else fractions))
    return [(split or next(drawn), stem, image, label) for split, stem, image, label in found]


def _named(found: list[tuple[str, str, str, str]]) -> list[Pair]:
    """Give every item a valid, unique name: one used in several splits gets its split in front, others a number."""
    uses = Counter(
        names.item_name(stem) for _, stem, *_ in {(split, names.item_name(stem)) for split, stem, *_ in found}
    )
    taken: set[str] = set()
    pairs = []
    for split, stem, image, label in sorted(found, key=lambda entry: (SPLITS.index(entry[0]), entry[1])):
        name = names.item_name(stem)
        name = name if uses[name] == 1 else names.item_name(f"{split}-{stem}")
        free, number = name, 1
        while free in taken:
            number += 1
            free = f"{name[: names.LONGEST_ITEM - 8]}-{number}"
        taken.add(free)
        pairs.append(Pair(name=free, split=split, image=image, label=label))
    return pairs


def _nothing(left_out: dict[str, str], where: str) -> str:
    images, labels = ([path for path, why in left_out.items() if why == kind] for kind in (NO_LABEL, NO_IMAGE))
    seen = f"{_count(images, 'image')} and {_count(labels, 'label file')}"
    elsewhere = sum(why == OTHER_FOLDER for why in left_out.values())
    seen += f", and {elsewhere} files in other folders" if elsewhere else ""
    others = [path for path, why in left_out.items() if why == OTHER_KIND]
    seen += f", and {_count(others, 'file')} of kinds that are not read" if others else ""
    return f"No image{f' in {where}' if where else ''} has a label file: there are {seen}; {HOW}."


def _count(paths: list[str], what: str) -> str:
    text = f"{len(paths) or 'no'} {what}{'' if len(paths) == 1 else 's'}"
    return f"{text} ({paths[0]}{', ...' if len(paths) > 1 else ''})" if paths else text
