"""What a GeoJSON feature is to QuPath: a cell, background, or an object that only says where to look.

QuPath exports everything in its hierarchy: cells, but also the region they were detected in, cores of a tissue
microarray, tiles, and areas of classes that it ignores itself. Sources: QuPath's documentation of classifications
(`PathClassTools.isIgnoredClass`: a name that ends with an asterisk) and of its GeoJSON (`objectType`; up to 0.2 the
Java class in `id`); the classes Training, Validation and Test are those of its Cellpose and StarDist extensions.
"""

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

from cellsparse_common.errors import InvalidArgument

_SKIPPED_TYPES = {
    "tmacore": "a core of a tissue microarray",
    "tmacoreobject": "a core of a tissue microarray",
    "root": "the root of the hierarchy",
    "pathrootobject": "the root of the hierarchy",
    "tile": "a tile",
    "pathtileobject": "a tile",
}
_DETECTIONS = ("detection", "pathdetectionobject", "cell", "pathcellobject")
_REGIONS = re.compile(r"(region|ignored?|train(ing)?|val(idation)?|test(ing)?)[ _-]?\d*")
_LONGEST_TEXT = 10_000
_DEEPEST_TEXT = 3
"""Most texts in each other: a table that keeps JSON as text may be saved as JSON again."""
_OTHER_NAMES = ("pathClass", "class", "class_name", "label", "name")
"""Properties in which a feature without a classification may be called background, as ROIs are by their names."""


@dataclass(frozen=True, kw_only=True)
class QuPathObject:
    """One object of QuPath's hierarchy."""

    classes: tuple[str, ...]
    """Its classification, outermost first: ("Tumor", "Positive") for "Tumor: Positive"; empty if it has none."""
    kind: str
    """Its type in lower case without underscores: annotation, detection, cell, tmacore, ...; "" if not given."""

    @property
    def background(self) -> bool:
        """Whether it marks background."""
        return bool(self.classes) and self.classes[0].casefold() == "background"

    @property
    def detection(self) -> bool:
        """Whether it is a detection: an object that never holds others."""
        return self.kind in _DETECTIONS

    @property
    def why_skipped(self) -> str:
        """Why it is no label, as the rest of a sentence; "" for cells and background."""
        if self.kind in _SKIPPED_TYPES:
            return f"is {_SKIPPED_TYPES[self.kind]}"
        for name in self.classes:
            if name.endswith("*"):
                return f"is of class {name[:50]!r}, and QuPath ignores classes that end with *"
        if self.classes and marks_region(self.classes[0]):
            return f"is of class {self.classes[0][:50]!r}, which marks a region"
        return ""


def marks_region(name: str) -> bool:
    """Whether a class is named like areas that say where to look: Region, Training, Test 2, ..."""
    return _REGIONS.fullmatch(name.casefold()) is not None


def read_object(feature: dict[str, Any], name: str, field: str) -> QuPathObject:
    """Return what QuPath says of a feature.

    Args:
        feature: The GeoJSON feature.
        name: Its name in messages.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: Its classification cannot be understood.
    """
    found = feature.get("properties")
    properties: dict[str, Any] = found if isinstance(found, dict) else {}
    kind = next((properties[key] for key in ("objectType", "object_type", "type") if properties.get(key)), None)
    if kind is None and str(feature.get("id")).startswith(("Path", "TMACore")):  # as QuPath 0.2 wrote it
        kind = feature["id"]
    classes = _classes(properties.get("classification"))
    if classes is None:
        raise InvalidArgument(
            f"In the {field}, {name} has the classification {str(properties['classification'])[:80]!r}; allowed: a "
            'name, a list of names, {"name": ...}, one of these as text, or null.',
            field,
        )
    if not classes and _is_called_background(properties):
        classes = ("Background",)
    return QuPathObject(classes=classes, kind=str(kind or "").replace("_", "").casefold())


def _is_called_background(properties: dict[str, Any]) -> bool:
    """Whether a feature without a classification says in another place that it is background."""
    found = (_classes(properties.get(key)) for key in _OTHER_NAMES)
    return any(names and names[0].casefold() == "background" for names in found)


def _classes(value: Any, depth: int = 0) -> tuple[str, ...] | None:
    """Return the names in a classification, None if it is none of the known forms.

    Args:
        value: The classification, or what was found in it.
        depth: How many texts it was in.
    """
    if value is None:
        return ()
    if isinstance(value, dict):
        given = value.get("names") if value.get("names") else value.get("name")
        return None if isinstance(given, dict) else _classes(given, _DEEPEST_TEXT)
    if isinstance(value, list):
        if not all(isinstance(name, str) for name in value):
            return None
        return tuple(name.strip() for name in value if name.strip())
    if not isinstance(value, str):
        return None
    text = value.strip()
    if depth < _DEEPEST_TEXT and (text[:1] in ("{", "[", '"') or text == "null"):
        return _from_text(text, depth + 1)
    return tuple(part.strip() for part in text.split(":") if part.strip())


def _from_text(text: str, depth: int) -> tuple[str, ...] | None:
    """Return the names in a classification that another tool wrote as text: JSON, or as Python shows it."""
    if len(text) > _LONGEST_TEXT:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            return _classes(parse(text), depth)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return None
