"""Requests of every REST route, made of the gateway's own description, and of the routes of QuPath's extensions."""

import base64
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from support.fuzz.files import hostile_file, hostile_value, valid_files_once
from support.fuzz.messages import Ids

_SHORT = {"project": "project_id", "dataset": "dataset_id", "run": "run_id", "model": "model_id", "image": "image_id"}
_SHORT |= {"study": "study_id", "layer": "layer_id"}
_WORDS = ("", "0", "1", "-1", "1e9", "4294967296", "99999999999999999999", "nan", "true", "a", "../x", "%00", "x" * 300)
_WORDS += ("Ä😀", "tiff", "geojson", "unet", "YX", "a,b", "\r\nX: y", "classical")
_QUPATH = {"/cellpose/", "/stardist/", "/elephant/", "/elephant/reset/", "/reset/", "/"}
_SAM = {"/sam/", "/sam/automask/", "/sam/weights/", "/sam/upload/"}
_KINDS = ("application/json", "application/octet-stream", "image/tiff", "text/plain", "multipart/form-data", "\xff", "")


@dataclass(frozen=True, kw_only=True)
class WebRequest:
    """One request."""

    method: str
    path: str
    """With its query."""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Route:
    """One route of the description."""

    method: str
    path: str
    parameters: Sequence[dict[str, Any]] = ()
    body: Any = None
    """Schema of its JSON document; None: it takes none."""
    takes_file: bool = False


def routes(description: dict[str, Any]) -> list[Route]:
    """Return the routes of an OpenAPI document, and those that stand in none."""
    found = []
    for path, methods in sorted(description["paths"].items()):
        for method, about in sorted(methods.items()):
            content = about.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            parameters = about.get("parameters", ())
            found.append(
                Route(
                    method=method.upper(),
                    path=path,
                    parameters=parameters,
                    body=schema,
                    takes_file=bool(content) and schema is None,
                )
            )
    found += [Route(method="POST", path=path) for path in sorted(_QUPATH | _SAM)]
    found += [Route(method="GET", path=path) for path in ("/sam/weights/", "/sam/version/", "/metrics", "/", "/docs/x")]
    return found


def hostile_request(number: random.Random, route: Route, schemas: dict[str, Any], ids: Ids) -> WebRequest:
    """Return a request to a route: some are valid, most are not."""
    path, query = route.path, []
    for parameter in route.parameters:
        value = _parameter(number, parameter["name"], ids)
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(value, safe="") or "x")
        elif parameter["in"] == "query" and (parameter.get("required") or number.random() < 0.3):
            query.append(f"{parameter['name']}={quote(value, safe='')}")
    if query:
        path += "?" + "&".join(query)
    headers = {}
    if number.random() < 0.2:
        headers = {
            number.choice(("If-None-Match", "Last-Event-ID", "Range", "Accept", "Accept-Encoding", "Authorization")): (
                number.choice(("", "*", "bytes=0-", "-1", "9" * 40, "gzip;q=x", "Bearer x", "\xe4", "W/" + '"' * 9))
            )
        }
    body = _body(number, route, schemas, ids)
    if body:
        headers["Content-Type"] = _KINDS[0] if number.random() < 0.7 else number.choice(_KINDS)
    return WebRequest(method=route.method, path=path, body=body, headers=headers)


def _parameter(number: random.Random, name: str, ids: Ids) -> str:
    known = ids.get(_SHORT.get(name, name))
    if known and number.random() < 0.7:
        return number.choice(known)
    return number.choice(_WORDS)


def _body(number: random.Random, route: Route, schemas: dict[str, Any], ids: Ids) -> bytes:
    if route.method in ("GET", "DELETE"):
        return b""
    if route.takes_file:
        name = number.choice(sorted(valid_files_once()))
        return hostile_file(number, name)[: 2**20] if number.random() < 0.8 else valid_files_once()[name]
    if route.path in _QUPATH | _SAM:
        document: Any = _qupath(number, route.path in _SAM)
    else:
        document = _document(number, route.body, schemas, ids, 4)
    if isinstance(document, dict) and document and number.random() < 0.4:
        document[number.choice([*document, "more"])] = hostile_value(number)
    data = json.dumps(document).encode("utf-8", "surrogatepass")
    kind = number.random()
    if kind < 0.75:
        return data
    if kind < 0.85:
        return data[: number.randrange(len(data) + 1)]
    if kind < 0.95:
        at = number.randrange(len(data) + 1)
        return data[:at] + number.choice((b"\xff\xfe", b"\0", b'"', b"{", b"1" * 5000)) + data[at:]
    return b"[" * number.choice((100, 100_000))


def _qupath(number: random.Random, sam: bool) -> dict[str, Any]:
    name = number.choice(("png", "png-deep", "png-colour", "jpeg", "tiff-jpeg", "zarr-0.5"))
    data = valid_files_once()[name] if number.random() < 0.3 else hostile_file(number, name)[: 2**20]
    picture = base64.b64encode(data).decode()
    if sam:
        return {"type": "vit_h", "b64img": picture, "point_coords": [[5, 5]], "point_labels": [1]}
    return {"modelname": "default", "b64img": picture, "eval": True, "train": False, "simplify_tol": 0.5}


def _document(number: random.Random, schema: Any, schemas: dict[str, Any], ids: Ids, depth: int) -> Any:
    """Return a document that fits a schema roughly."""
    if not isinstance(schema, dict) or depth == 0:
        return hostile_value(number)
    if "$ref" in schema:
        return _document(number, schemas.get(schema["$ref"].rpartition("/")[2]), schemas, ids, depth)
    for several in ("anyOf", "oneOf", "allOf"):
        if schema.get(several):
            return _document(number, number.choice(schema[several]), schemas, ids, depth)
    if "enum" in schema and number.random() < 0.8:
        return number.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        return {
            name: number.choice(ids[name])
            if ids.get(name) and number.random() < 0.7
            else _document(number, each, schemas, ids, depth - 1)
            for name, each in schema.get("properties", {}).items()
            if number.random() < 0.6
        }
    if kind == "array":
        return [
            _document(number, schema.get("items"), schemas, ids, depth - 1) for _ in range(number.choice((0, 1, 3)))
        ]
    if kind in ("integer", "number"):
        return number.choice((0, 1, 2, 16, 0.5, -1, 2**31, 2**32, 2**64, 1e308))
    if kind == "boolean":
        return number.random() < 0.5
    if kind == "string":
        return number.choice((*_WORDS[:12], "unet", "fast", "\0", "x" * 9000))
    return hostile_value(number)
