"""Reading annotations from GeoJSON, as QuPath exports them.

Checked by hand: pydantic models would be shorter, but imaging is also used where pydantic is not installed.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.imaging.json_features import read_features
from cellsparse_common.imaging.qupath_objects import read_object
from cellsparse_common.imaging.shapes import MAX_VERTICES, Ring, Shape

_WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
_NO_OUTLINE = "has no coordinates, so it has no outline"
_DEEPEST = 8
"""Most collections of geometries in each other."""


def read_shapes(data: bytes, field: str) -> list[Shape]:
    """Return the annotations of a file in their order.

    Args:
        data: A FeatureCollection, a list of features, or one feature; coordinates in pixels. A Polygon or MultiPolygon
            whose classification is "Background" (in any case) marks background. Others are cells, but for those that
            are none to QuPath (see `qupath_objects`) and points and lines: these come back with the reason.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: Not such a file; the sentence names the feature.
        ResourceExhausted: Too long, or too many vertices.
    """
    vertices = 0
    shapes = []
    for name, feature in _walk(read_features(data, field)):
        shape = _shape(feature, name, field)
        vertices += shape.vertices
        if vertices > MAX_VERTICES:
            raise ResourceExhausted(
                f"The {field} has more than {MAX_VERTICES:,} vertices; simplify the outlines.", field
            )
        shapes.append(shape)
    return shapes


def _walk(features: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yield (name, feature) of all features, those that QuPath wrote inside their parents after these."""
    for number, feature in enumerate(features, 1):
        waiting = [(f"feature {number}", feature)]
        while waiting:
            name, found = waiting.pop()
            yield name, found
            waiting += [(f"{name}.{at}", child) for at, child in enumerate(_children(found), 1)][::-1]


def _children(feature: Any) -> list[Any]:
    properties = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(properties, dict):
        return []
    return next((found for key in ("childObjects", "children") if isinstance(found := properties.get(key), list)), [])


def _shape(feature: Any, name: str, field: str) -> Shape:
    """Return one feature's shape."""
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise InvalidArgument(f"In the {field}, {name} is no GeoJSON Feature with a geometry.", field)
    seen = read_object(feature, name, field)
    if seen.why_skipped:  # whatever its geometry
        return Shape(name=name, skipped=seen.why_skipped)
    if _is_empty(feature.get("geometry", ())):
        return Shape(name=name, skipped=_NO_OUTLINE)
    if not isinstance(feature.get("geometry"), dict):
        raise InvalidArgument(f"In the {field}, {name} is no GeoJSON Feature with a geometry.", field)
    kinds = set()
    polygons: list[list[Ring]] = []
    short = -1
    for kind, coordinates in _parts(feature["geometry"], name, field):
        kinds.add(kind)
        if kind != "Polygon":
            continue
        rings = [_ring(ring, name, field) for ring in coordinates]
        if len(rings[0]) < 3:
            short = len(rings[0])
        else:
            polygons.append([ring for ring in rings if len(ring) >= 3])
    why = ""
    if not polygons and short >= 0:
        why = f"has {short} vertices; an outline needs at least 3"
    elif not polygons:
        kind = sorted(kinds)[0] if kinds else "GeometryCollection"
        why = f"is of type {kind!r}; allowed: Polygon and MultiPolygon, as points and lines enclose no area"
    plane, time = (_place(feature, axis, name, field) for axis in "zt")
    return Shape(
        name=name,
        plane=plane,
        time=time,
        number=_number(feature) if seen.detection else None,
        background=seen.background,
        polygons=polygons,
        skipped=why,
        may_hold=not seen.detection,
        detection=seen.detection,
    )


def _is_empty(geometry: Any) -> bool:
    """Whether a geometry is that of an object without an outline."""
    return geometry is None or (isinstance(geometry, dict) and geometry.get("coordinates") in ([], [[]]))


def _parts(geometry: Any, name: str, field: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield (type, coordinates) of each part of a geometry: each Polygon of a MultiPolygon, each of a collection."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind == "GeometryCollection" and depth < _DEEPEST:
        for part in _list(geometry.get("geometries"), name, field):
            yield from _parts(part, name, field, depth + 1)
    elif kind == "MultiPolygon":
        for part in _list(geometry.get("coordinates"), name, field):
            yield "Polygon", _list(part, name, field)
    elif kind == "Polygon":
        yield kind, _list(geometry.get("coordinates"), name, field)
    elif kind in _WITHOUT_AREA:
        yield kind, None
    else:
        raise InvalidArgument(
            f"In the {field}, {name} is of type {str(kind)[:50]!r}; allowed: Polygon and MultiPolygon.", field
        )


def _list(value: Any, name: str, field: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise InvalidArgument(f"In the {field}, {name} has no coordinates.", field)
    return value


def _place(feature: dict[str, Any], axis: str, name: str, field: str) -> int:
    """Return the plane or the time point that QuPath keeps with a geometry; it leaves out the first one."""
    plane = feature["geometry"].get("plane")
    value = plane.get(axis, 0) if isinstance(plane, dict) else 0
    if type(value) not in (int, float) or value != value // 1 or not 0 <= value < 2**31:
        raise InvalidArgument(f"In the {field}, {name} is on {axis} {str(value)[:50]!r}; allowed: 0 or more.", field)
    return int(value)


def _number(feature: dict[str, Any]) -> int | None:
    """Return the number that a detection is called, None if it has another name or none."""
    found = feature.get("properties")
    name = found.get("name") if isinstance(found, dict) else None
    return int(name) if isinstance(name, str) and name.isascii() and name.isdigit() and len(name) < 10 else None


def _ring(points: Any, name: str, field: str) -> Ring:
    """Return a ring as an array; a last point equal to the first is dropped. It may have less than 3 points."""
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
    return ring
