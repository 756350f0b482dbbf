"""Labels as COCO JSON: instances as polygons or run lengths, plain or compressed.

Pixels of no annotation are background. Annotations with `iscrowd` or `ignore` are not labelled: COCO leaves them out of
scores. Our writer marks what is not labelled in this way.
"""

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging import run_lengths
from cellsparse_common.imaging.coco_painter import Painter
from cellsparse_common.imaging.polygons import Drawing, Skipped, refuse_empty
from cellsparse_common.imaging.qupath_objects import marks_region
from cellsparse_common.imaging.types import Indices

MAX_BYTES = 64 * 2**20
"""Longest text read; parsed JSON takes many times as much memory."""
_NONE_OF_ITS = "none of whose annotations has the image_id of one of its images"


def is_coco(data: bytes) -> bool:
    """Tell whether a file is COCO JSON, by the two lists that it must have."""
    return data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") and (
        b'"annotations"' in data and b'"images"' in data
    )


def parse(data: bytes, field: str) -> dict[str, Any]:
    """Return a file's content, in which `images` and `annotations` are lists of objects.

    Raises:
        InvalidArgument: It is no COCO JSON.
        ResourceExhausted: It is too long.
    """
    if len(data) > MAX_BYTES:
        raise ResourceExhausted(
            f"The {field} is a COCO file of {len(data):,} bytes; allowed: at most {MAX_BYTES:,}.", field
        )
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"The {field} is a truncated or broken COCO file: {error}.", field) from error
    for key in ("images", "annotations"):
        entries = document.get(key) if isinstance(document, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise InvalidArgument(f"The {field} is no COCO file: it has no list of {key}.", field)
    return dict(document)


def split(document: dict[str, Any], field: str) -> dict[str, bytes]:
    """Return a file of its own for each image, by the image's `file_name` without folders.

    Raises:
        InvalidArgument: No annotation is of one of its images.
    """
    by_image: dict[Any, list[Any]] = {}
    for annotation in document["annotations"]:
        by_image.setdefault(_id(annotation.get("image_id")), []).append(annotation)
    if by_image and not by_image.keys() & {_id(image.get("id")) for image in document["images"]}:
        raise InvalidArgument(f"The {field} is a COCO file {_NONE_OF_ITS}.", field)
    files = {}
    for image in document["images"]:
        name = str(image.get("file_name", "")).replace("\\", "/").rpartition("/")[2]
        part = {
            "images": [image],
            "annotations": by_image.get(_id(image.get("id")), []),
            "categories": document.get("categories", []),
        }
        files[name] = json.dumps(part, separators=(",", ":")).encode()
    return files


def draw_annotations(data: bytes, *, shape: tuple[int, int], field: str) -> Drawing:
    """Draw the annotations of a file of one image.

    Cells are numbered 1, 2, ... in their order; where two overlap the first has the pixel. Categories are cells, except
    those called background, those called ignore or ending with *, which are not labelled (in any case), and those
    called region and the like, which say nothing. Annotations that leave no pixel, are flat, are of another image, or
    are a frame around the whole image are skipped.

    Args:
        data: The file.
        shape: (height, width) of the image.
        field: Name of the request's field, for messages.

    Returns:
        int32, axes YX: -1 in crowds and ignored annotations, 0 background, n > 0 cell n; and what was skipped.

    Raises:
        InvalidArgument: Not such a file, or of another size; the sentence names the annotation.
        ResourceExhausted: It is too long, or its annotations are too many.
    """
    document = parse(data, field)
    _check_image(document["images"], shape, field)
    names = _categories(document)
    painter = Painter(shape, field)
    groups: dict[int, list[tuple[str, Any]]] = {1: [], 0: [], -1: []}
    skipped = []
    image_id = _id(document["images"][0].get("id"))
    foreign = 0
    for number, annotation in enumerate(document["annotations"], 1):
        name = f"annotation {number}"
        category = names.get(_id(annotation.get("category_id")), "")
        if "image_id" in annotation and _id(annotation["image_id"]) != image_id:
            foreign += 1
            skipped.append(Skipped(name=name, why="is of another image (image_id)"))
        elif _flag(annotation.get("iscrowd")) or _flag(annotation.get("ignore")) or _is_ignored(category):
            groups[-1].append((name, annotation.get("segmentation")))
        elif marks_region(category):
            skipped.append(Skipped(name=name, why=f"is of category {category[:50]!r}, which marks a region"))
        else:
            groups[0 if category == "background" else 1].append((name, annotation.get("segmentation")))
    if foreign and foreign == len(document["annotations"]):
        raise InvalidArgument(f"The {field} is a COCO file {_NONE_OF_ITS}.", field)
    without_pixels = []
    for kind in (1, 0, -1):
        for name, segmentation in groups[kind]:
            why = painter.paint(segmentation, name, kind)
            without_pixels += [Skipped(name=name, why=why)] if why else []
    refuse_empty(without_pixels, len(document["annotations"]), field)
    skipped += without_pixels
    return Drawing(label=painter.labels(), skipped=skipped)


def encode_coco(label: npt.NDArray[np.integer[Any]], image_name: str) -> bytes:
    """Return a COCO file of one image, cells as compressed run lengths.

    Args:
        label: Axes YX: -1 not labelled, which becomes a crowd, 0 background, n > 0 cell n.
        image_name: Name of the image's file.
    """
    return join([(image_name, label)])


def join(images: list[tuple[str, npt.NDArray[np.integer[Any]]]]) -> bytes:
    """Return a COCO file of several images, cells as compressed run lengths.

    Args:
        images: Name of the image's file, and its labels as for `encode_coco`.
    """
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, label) in enumerate(images, 1):
        height, width = label.shape
        entries.append({"id": image_id, "file_name": name, "height": height, "width": width})
        found = [_annotation(label.shape, *runs) for runs in run_lengths.runs_by_value(label) if runs[0]]
        for annotation in sorted(found, key=lambda entry: int(entry["iscrowd"])):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
    document = {
        "info": {"description": "Cellsparse: pixels of no annotation are background, crowds are not labelled"},
        "images": entries,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cell", "supercategory": ""}],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _annotation(shape: tuple[int, ...], value: int, starts: Indices, ends: Indices) -> dict[str, Any]:
    height, width = shape
    first, last = starts // height, (ends - 1) // height
    several = bool((first != last).any())  # a run that goes on in the next column
    top, bottom = (0, height - 1) if several else (int((starts % height).min()), int(((ends - 1) % height).max()))
    left, right = int(first.min()), int(last.max())
    return {
        "category_id": 1,
        "iscrowd": int(value < 0),
        "area": int((ends - starts).sum()),
        "bbox": [left, top, right - left + 1, bottom - top + 1],
        "segmentation": {
            "size": [height, width],
            "counts": run_lengths.compress(run_lengths.counts_of(starts, ends, height * width)),
        },
    }


def _categories(document: dict[str, Any]) -> dict[str, str]:
    """Return the names of the categories in small letters, by their ids as text."""
    found = document.get("categories")
    return {
        _id(category.get("id")): str(category.get("name", "")).strip().casefold()
        for category in (found if isinstance(found, list) else [])
        if isinstance(category, dict)
    }


def _is_ignored(category: str) -> bool:
    return category.endswith("*") or category.startswith("ignore")


def _id(value: Any) -> str:
    """Return an id as text, the same for 1, 1.0 and "1"."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value).strip()


def _flag(value: Any) -> bool:
    """Return whether a flag is set: tables save 0 and false as text."""
    return str(value).strip().casefold() not in ("none", "", "0", "0.0", "false", "no")


def _check_image(images: list[dict[str, Any]], shape: tuple[int, int], field: str) -> None:
    if len(images) != 1:
        raise InvalidArgument(
            f"The {field} is a COCO file of {len(images)} images; give one file per image, or import the folder that "
            "holds it, which pairs images by file_name.",
            field,
        )
    found = images[0].get("height"), images[0].get("width")
    if found != (None, None) and [_id(size) for size in found] != [str(size) for size in shape]:
        has, wants = (" x ".join(map(str, size)) for size in (found, shape))
        raise InvalidArgument(f"The {field} is {has} pixels, its image {wants}; both must have the same size.", field)
