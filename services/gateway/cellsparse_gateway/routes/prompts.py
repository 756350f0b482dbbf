"""Proposals for the cell that a person points at."""

import base64
import time
import zlib
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellsparse_gateway.answers import ID_PATTERN, Id, json_answer
from cellsparse_gateway.prompts.images import ImagePrompts
from cellsparse_gateway.prompts.places import Asked
from cellsparse_gateway.prompts.types import AUTO, Box, Point, Proposal, best
from cellsparse_gateway.schemas import answers, object_of, takes
from cellsparse_gateway.uploads import json_body

LARGEST = 1e7
"""Largest coordinate, pixels."""
Coordinate = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
MAX_POINTS = 100
MAX_CORNERS = 10_000
_NUMBER = {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Point(_Strict):
    x: Coordinate
    y: Coordinate
    positive: bool = True


class _Body(_Strict):
    method: Annotated[str, Field(pattern=ID_PATTERN)] = AUTO
    plane: Annotated[int, Field(ge=0, le=2**31)] = 0
    channel: Annotated[int, Field(ge=0, le=2**31)] | None = None
    points: Annotated[list[_Point], Field(max_length=MAX_POINTS)] = Field(default_factory=list)
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None
    scribble: Annotated[list[tuple[Coordinate, Coordinate]], Field(max_length=MAX_CORNERS)] | None = None
    diameter: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None
    layer: Annotated[str, Field(pattern=f"^$|{ID_PATTERN}")] = ""

    def asked(self) -> Asked:
        """Return the prompt."""
        x0, y0, x1, y1 = self.box or (0, 0, 0, 0)
        return Asked(
            method=self.method,
            plane=self.plane,
            channel=self.channel,
            points=tuple(Point(x=point.x, y=point.y, positive=point.positive) for point in self.points),
            box=Box(left=min(x0, x1), top=min(y0, y1), right=max(x0, x1), bottom=max(y0, y1)) if self.box else None,
            scribble=tuple(self.scribble or ()),
            diameter=self.diameter,
            layer=self.layer,
        )


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_PAIR = {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2}
BODY = {
    "type": "object",
    "description": "What shows the cell, in pixels of the full image: at least a positive point, a box or a scribble.",
    "additionalProperties": False,
    "properties": {
        "method": {
            "type": "string",
            "pattern": ID_PATTERN,
            "default": AUTO,
            "description": "auto, or a prompter of the status: model, classical, onnx-sam or one that a user added.",
        },
        "plane": {"type": "integer", "minimum": 0, "maximum": 2**31, "default": 0},
        "channel": _or_null({"type": "integer", "minimum": 0, "maximum": 2**31}),
        "points": {
            "type": "array",
            "maxItems": MAX_POINTS,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"x": _NUMBER, "y": _NUMBER, "positive": {"type": "boolean", "default": True}},
                "required": ["x", "y"],
            },
        },
        "box": _or_null({"type": "array", "items": _NUMBER, "minItems": 4, "maxItems": 4}),
        "scribble": _or_null({"type": "array", "items": _PAIR, "maxItems": MAX_CORNERS}),
        "diameter": _or_null({"type": "number", "exclusiveMinimum": 0, "maximum": 100_000}),
        "layer": {"type": "string", "pattern": f"^$|{ID_PATTERN}", "default": ""},
    },
}
_WHOLE = {"type": "integer", "minimum": 0}
ANSWER = object_of(
    proposals={
        "type": "array",
        "description": "From small to large.",
        "items": object_of(
            x=_WHOLE,
            y=_WHOLE,
            width=_WHOLE,
            height=_WHOLE,
            data={"type": "string", "contentEncoding": "base64", "description": "zlib of uint8 0 or 1, row by row."},
            quality={
                "type": "number",
                "description": "The IoU to expect, 0 to 1; of a predicted cell how sure its model is.",
            },
            level={"type": "integer", "description": "0 for the one to show first."},
        ),
    },
    best={"type": "integer", "minimum": 0, "description": "Index of the one to show first; 0 if there is none."},
    prompter={"type": "string"},
    milliseconds={"type": "number"},
)


def router(prompts: ImagePrompts) -> APIRouter:
    """Return the route of prompts."""
    routes = APIRouter(tags=["prompts"])

    @routes.post("/images/{image}/prompt", responses=answers(ANSWER), openapi_extra=takes(BODY))
    def prompt(image: Id, body: Annotated[Any, Depends(json_body)]) -> Response:
        """Propose masks for the cell that points, a box or a scribble show."""
        try:
            asked = _Body.model_validate(body).asked()
        except ValidationError as error:
            errors = [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
            raise RequestValidationError(errors) from None
        begin = time.perf_counter()
        found, name = prompts.propose(image, asked)
        milliseconds = 1000 * (time.perf_counter() - begin)
        shown = [_json(each) for each in found if each.mask.size]
        first = best(found) if shown else 0
        return json_answer({"proposals": shown, "best": first, "prompter": name, "milliseconds": milliseconds})

    return routes


def _json(proposal: Proposal) -> dict[str, Any]:
    height, width = proposal.mask.shape
    data = zlib.compress(proposal.mask.astype(np.uint8).tobytes(), 1)
    return {
        "x": proposal.x,
        "y": proposal.y,
        "width": width,
        "height": height,
        "data": base64.b64encode(data).decode("ascii"),
        "quality": proposal.quality,
        "level": proposal.level,
    }
