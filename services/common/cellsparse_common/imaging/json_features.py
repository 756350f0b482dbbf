"""Reading GeoJSON one feature after the other: parsed JSON takes many times as much memory as its text.

The standard library's scanner is fast and reads a value from any place in a text, so only the frame around the features
is read here.
"""

import json
import re
from collections.abc import Generator, Iterator
from typing import Any

from cellsparse_common.errors import InvalidArgument, ResourceExhausted

MAX_BYTES = 64 * 2**20
"""Longest text read."""
MAX_BRACKETS = 4_000_000
"""Most lists and objects in a text: each takes about 100 bytes once it is read, and one feature may have them all. Two
million vertices, the most that are drawn, are as many lists."""

_SPACE = re.compile(r"[ \t\r\n]*")
_decode = json.JSONDecoder().raw_decode


def read_features(data: bytes, field: str) -> Iterator[Any]:
    """Yield what a file has as features, in their order, whatever they are.

    Args:
        data: A FeatureCollection, a list of features, or one feature. UTF-8.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: It is no JSON, or has no list of features, or an empty one. Features before a broken one are
            yielded first.
        ResourceExhausted: It is too long.
    """
    if len(data) > MAX_BYTES:
        raise ResourceExhausted(
            f"The {field} is a GeoJSON file of {len(data):,} bytes; allowed: at most {MAX_BYTES:,}.", field
        )
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise ResourceExhausted(
            f"The {field} is a GeoJSON file of more than {MAX_BRACKETS:,} points; simplify the outlines.", field
        )
    empty = InvalidArgument(f"The {field} is a GeoJSON file without features; draw at least one cell.", field)
    try:
        text = data.decode("utf-8-sig")
        found = 0
        for feature in _features(text):
            found += 1
            yield feature
        if not found:
            raise empty
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"The {field} is a truncated or broken GeoJSON file: {error}.", field) from error


def _features(text: str) -> Iterator[Any]:
    """Yield the features of a document.

    Raises:
        ValueError: It is no JSON.
    """
    at = _skip(text, 0)
    if text.startswith("[", at):
        at = yield from _elements(text, at)
    elif text.startswith("{", at):
        # A collection is told from a single feature by its list of features: only that may be long.
        at, members, listed = yield from _members(text, at)
        kind = members.get("type")
        if kind != "FeatureCollection" and not listed:
            yield members
        elif kind != "FeatureCollection":
            raise ValueError(f'it has features, but its type is {str(kind)[:50]!r} in place of "FeatureCollection"')
    else:
        _decode(text, at)
        return
    if _skip(text, at) != len(text):
        raise json.JSONDecodeError("Extra data", text, _skip(text, at))


def _members(text: str, at: int) -> Generator[Any, None, tuple[int, dict[str, Any], bool]]:
    """Yield the elements of an object's list of features; return its end, its other members, and if it has one."""
    members: dict[str, Any] = {}
    listed = False
    at = _skip(text, at + 1)
    while not text.startswith("}", at):
        if members or listed:
            at = _skip(text, _expect(text, at, ","))
        if not text.startswith('"', at):
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        key, at = _decode(text, at)
        at = _skip(text, _expect(text, _skip(text, at), ":"))
        if key == "features" and text.startswith("[", at):
            at = yield from _elements(text, at)
            listed = True
        else:
            members[key], at = _decode(text, at)
        at = _skip(text, at)
    return at + 1, members, listed


def _elements(text: str, at: int) -> Generator[Any, None, int]:
    """Yield the elements of a list; return where it ends."""
    at = _skip(text, at + 1)
    first = True
    while not text.startswith("]", at):
        if not first:
            at = _skip(text, _expect(text, at, ","))
        first = False
        element, at = _decode(text, at)
        yield element
        del element  # while the next one is read, this one need not be there
        at = _skip(text, at)
    return at + 1


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _expect(text: str, at: int, letter: str) -> int:
    if not text.startswith(letter, at):
        raise json.JSONDecodeError(f"Expecting {letter!r} delimiter", text, at)
    return at + 1
