"""Folders of images and label files, paired by name and split the same way every time."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellsparse.errors import InvalidArgument
from cellsparse.items import Item

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".geojson", ".zip")
SPLITS = ("train", "val", "test")
DEFAULT_FRACTIONS = (0.6, 0.2, 0.2)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Content of a folder."""

    items: list[Item]
    """Images with their labels, as paths, sorted by split and name."""
    unmatched: list[Path]
    """Files without a partner, or of an unsupported kind."""


def read_folder(root: Path, fractions: Sequence[float] = DEFAULT_FRACTIONS) -> Pairs:
    """Pair the files of `root/images` and `root/masks`, or of `root/{train,val,test}/{images,masks}`, by stem.

    Args:
        root: The folder.
        fractions: Shares of train, val and test for folders without splits; sum 1.

    Raises:
        InvalidArgument: No such folder, another layout, no pair at all, or two files for one name.
    """
    if not root.is_dir():
        raise InvalidArgument(f"{root} is not a folder.")
    if (root / "images").is_dir():
        return read_pair_of_folders(root / "images", root / "masks", fractions)
    present = [split for split in SPLITS if (root / split / "images").is_dir()]
    if not present:
        raise InvalidArgument(
            f"{root} holds neither images/ and masks/ nor train/, val/ or test/ with these two in it."
        )
    items: list[Item] = []
    unmatched: list[Path] = []
    for split in present:
        pairs, alone = _pair(root / split / "images", root / split / "masks")
        items += [Item(name=name, split=split, image=image, label=label) for name, image, label in pairs]
        unmatched += alone
    return Pairs(items=_unique(items), unmatched=unmatched)


def read_pair_of_folders(images: Path, masks: Path, fractions: Sequence[float] = DEFAULT_FRACTIONS) -> Pairs:
    """Pair the files of two folders by stem and split them.

    Raises:
        InvalidArgument: No such folder, no pair at all, or two files for one name.
    """
    pairs, unmatched = _pair(images, masks)
    splits = split_names(len(pairs), fractions)
    items = [
        Item(name=name, split=split, image=image, label=label)
        for split, (name, image, label) in zip(splits, pairs, strict=True)
    ]
    return Pairs(items=_unique(sorted(items, key=lambda item: SPLITS.index(str(item.split)))), unmatched=unmatched)


def split_names(count: int, fractions: Sequence[float]) -> list[str]:
    """Return a split for each of `count` items, in an order drawn once with a fixed seed.

    Every split with a share gets at least one item where there are items enough.

    Raises:
        InvalidArgument: Not three shares from 0 to 1 with sum 1 and something to train on.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        shown = ",".join(f"{share:g}" for share in fractions)
        raise InvalidArgument(
            f"split is {shown}; allowed: three shares train,val,test with sum 1, such as 0.6,0.2,0.2."
        )
    val, test = (max(round(count * share), int(share > 0 and count >= 3)) for share in fractions[1:])
    train = max(count - val - test, 1)
    ordered = (["train"] * train + ["val"] * val + ["test"] * test)[:count]
    import numpy as np  # here: no other command than an import of a folder needs it

    order = np.random.default_rng(0).permutation(count)
    return [ordered[index] for index in order]


def parse_fractions(text: str) -> tuple[float, ...]:
    """Return "0.6,0.2,0.2" as numbers.

    Raises:
        InvalidArgument: It holds something else.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidArgument(
            f"split is {text!r}; allowed: three shares train,val,test, such as 0.6,0.2,0.2."
        ) from error


def _pair(images: Path, masks: Path) -> tuple[list[tuple[str, Path, Path]], list[Path]]:
    for folder in (images, masks):
        if not folder.is_dir():
            raise InvalidArgument(f"{folder} is not a folder.")
    of_images, other_images = _by_stem(images, IMAGE_SUFFIXES)
    of_masks, other_masks = _by_stem(masks, LABEL_SUFFIXES)
    both = of_images.keys() & of_masks.keys()
    if not both:
        raise InvalidArgument(
            f"No file in {images} ({', '.join(IMAGE_SUFFIXES)}) has a label file of the same name in {masks} "
            f"({', '.join(LABEL_SUFFIXES)})."
        )
    alone = [path for side in (of_images, of_masks) for stem, path in side.items() if stem not in both]
    return [(stem, of_images[stem], of_masks[stem]) for stem in sorted(both)], sorted(
        [*alone, *other_images, *other_masks]
    )


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> tuple[dict[str, Path], list[Path]]:
    found: dict[str, Path] = {}
    others: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix.lower() not in suffixes:
            others.append(path)
        elif path.stem in found:
            raise InvalidArgument(f"{found[path.stem]} and {path} have the same name; keep one of them.")
        else:
            found[path.stem] = path
    return found, others


def _unique(items: list[Item]) -> list[Item]:
    """Give every item a valid, unique name. A name used in several splits is prefixed with its split."""
    uses = Counter(item.name for item in items)
    named: dict[str, Item] = {}
    for item in items:
        name = item.name if uses[item.name] == 1 else f"{item.split}-{item.name}"
        name = re.sub(r"[^A-Za-z0-9._ -]", "_", name)[:200]
        name = name if re.match(r"[A-Za-z0-9_]", name) else f"_{name[1:]}"
        if name in named:
            first = named[name].image
            raise InvalidArgument(f"{first!s} and {item.image!s} both become item {name!r}; rename one of them.")
        named[name] = Item(name=name, split=item.split, image=item.image, label=item.label)
    return list(named.values())
