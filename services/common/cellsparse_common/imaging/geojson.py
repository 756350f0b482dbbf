"""Reading annotations from GeoJSON, as QuPath exports them.

Checked by hand: pydantic models would be shorter, but imaging is also used where pydantic is not installed.
"""

from typing import Any

import numpy as np

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.json_features import read_features
from cellsparse_common.imaging.polygons import MAX_VERTICES, Ring, Shape


def read_shapes(data: bytes, field: str) -> list[Shape]:
    """Return the annotations of a file in their order.

    Args:
        data: A FeatureCollection, a list of features, or one feature; Polygon and MultiPolygon, coordinates in pixels.
            A feature whose classification is "Background" (in any case) marks background, all others are cells.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: Not such a file; the sentence names the feature.
        ResourceExhausted: Too long, or too many vertices.
    """
    vertices = 0
    shapes = []
    for number, feature in enumerate(read_features(data, field), 1):
        shape = _shape(feature, f"feature {number}", field)
        vertices += sum(len(ring) for polygon in shape.polygons for ring in polygon)
        if vertices > MAX_VERTICES:
            raise ResourceExhausted(
                f"The {field} has more than {MAX_VERTICES:,} vertices; simplify the outlines.", field
            )
        shapes.append(shape)
    return shapes


def _shape(feature: Any, name: str, field: str) -> Shape:
    """Return one feature's shape."""
    if (
        not isinstance(feature, dict)
        or feature.get("type") != "Feature"
        or not isinstance(feature.get("geometry"), dict)
    ):
        raise InvalidArgument(f"In the {field}, {name} is no GeoJSON Feature with a geometry.", field)
    geometry = feature["geometry"]
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        raise InvalidArgument(
            f"In the {field}, {name} is of type {str(kind)[:50]!r}; allowed: Polygon and MultiPolygon.", field
        )
    parts = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(parts, list) or not parts or not all(isinstance(part, list) and part for part in parts):
        raise InvalidArgument(f"In the {field}, {name} has no coordinates.", field)
    polygons = [[_ring(ring, name, field) for ring in part] for part in parts]
    return Shape(name=name, background=_classification(feature).casefold() == "background", polygons=polygons)


def _ring(points: Any, name: str, field: str) -> Ring:
    """Return a ring as an array; a last point equal to the first is dropped."""
    try:
        numbers = [number for point in points for number in point[:2]]
        if len(numbers) != 2 * len(points) or not {int, float}.issuperset(map(type, numbers)):
            raise TypeError
        ring = np.array(numbers, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError) as error:
        raise InvalidArgument(f"In the {field}, {name} has coordinates that are not x, y numbers.", field) from error
    if not np.isfinite(ring).all() or (np.abs(ring) > 1e9).any():
        raise InvalidArgument(f"In the {field}, {name} has coordinates that are not finite pixel numbers.", field)
    if len(ring) > 1 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if len(ring) < 3:
        raise InvalidArgument(f"In the {field}, {name} has {len(ring)} vertices; an outline needs at least 3.", field)
    return ring


def _classification(feature: dict[str, Any]) -> str:
    """Return the class QuPath gave a feature, "" if none; newer versions write a list of names."""
    properties = feature.get("properties")
    classification = properties.get("classification") if isinstance(properties, dict) else None
    if not isinstance(classification, dict):
        return ""
    names = classification.get("names")
    name = classification.get("name") or (names[0] if isinstance(names, list) and names else "")
    return str(name).strip()
