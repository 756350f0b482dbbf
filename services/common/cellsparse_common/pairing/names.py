"""What the names of files say: the image that they belong to, and the name of an item."""

import os
import re
import unicodedata
from pathlib import PurePosixPath

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".zarr", ".zarr.zip", ".ozx")
LABEL_ONLY_SUFFIXES = (".geojson", ".json", ".zip", ".roi", "_seg.npy")
"""Endings of files that hold labels and cannot be images: QuPath, COCO, ImageJ, Cellpose."""
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, *LABEL_ONLY_SUFFIXES)
LONGEST_ITEM = 200

_LABEL_WORDS = (
    r"cp[_ -]?masks?|masks?|labels?|seg|segmentations?|instances?|annotations?|gt|ground[_ -]?truth"
    r"|roi[_ -]?sets?|rois?"
)
_IMAGE_WORDS = r"img|imgs|images?|im|raw"
_GAP = r"[_.\s-]+"
_LABEL_END = re.compile(rf"(?P<base>.+?){_GAP}(?:{_LABEL_WORDS})")
_IMAGE_END = re.compile(rf"(?P<base>.+?){_GAP}(?:{_IMAGE_WORDS})")
_LABEL_START = re.compile(rf"(?:{_LABEL_WORDS})(?:{_GAP}|(?=\d))(?P<base>.+)")
_IMAGE_START = re.compile(rf"(?:{_IMAGE_WORDS})(?:{_GAP}|(?=\d))(?P<base>.+)")
_INNER = re.compile(r"\.(?:ome|tiff?|png|jpe?g|zarr)$")


def readable(name: str) -> str:
    """Return a name as text: bytes that are no UTF-8 are read as Latin-1, as older systems wrote them."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("latin-1")
    return name


def composed(stem: str) -> str:
    """Return a name in which letters and their accents are one character (NFC), however it was written."""
    return unicodedata.normalize("NFC", readable(stem))


def is_image_kind(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_label_only(name: str) -> bool:
    """Whether a name ends like that of a label file that cannot be an image."""
    return name.lower().endswith(LABEL_ONLY_SUFFIXES) and not is_image_kind(name)


def stem_of(name: str) -> str:
    """Return a name without its last ending."""
    return PurePosixPath(name).stem


def base_of(name: str) -> str:
    """Return what names of one image share: no endings (`.ome.tif`), no difference of case, width or accents' form."""
    text = unicodedata.normalize("NFKC", readable(stem_of(name))).casefold()
    return unicodedata.normalize("NFKC", _without_endings(text)).strip()


def _without_endings(text: str) -> str:
    """Return a base without endings of files; what Cellpose makes of `a.ome.tif` is called `a.ome_cp_masks.tif`."""
    while (shorter := _INNER.sub("", text)) != text:
        text = shorter
    return text


def label_base(base: str) -> str:
    """Return a base without the word at its end that marks a label file ("cell_masks": "cell"); "" without one."""
    found = _LABEL_END.fullmatch(base)
    return _without_endings(found["base"]) if found else ""


def image_base(base: str) -> str:
    """Return a base without the word at its end that marks an image ("cell_img": "cell"); "" without one."""
    found = _IMAGE_END.fullmatch(base)
    return _without_endings(found["base"]) if found else ""


def label_rest(base: str) -> str:
    """Return a base without the word at its beginning that marks a label file ("mask_01": "01"); "" without one."""
    found = _LABEL_START.fullmatch(base)
    return found["base"] if found else ""


def image_rest(base: str) -> str:
    """Return a base without the word at its beginning that marks an image ("img_01": "01"); "" without one."""
    found = _IMAGE_START.fullmatch(base)
    return found["base"] if found else ""


def item_name(stem: str) -> str:
    """Return the name that an item of a dataset may have; other characters become underscores."""
    name = re.sub(r"[^A-Za-z0-9._ -]", "_", composed(stem))[:LONGEST_ITEM]
    return name if re.match(r"[A-Za-z0-9_]", name) else f"_{name[1:]}"
