"""The bodies of requests, with the fields and defaults of cellsparse-api 0.2.0. Unknown fields are ignored."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from cellsparse_gateway.qupath.refusals import unprocessable

AnyBody = TypeVar("AnyBody", bound=BaseModel)
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class SegmentBody(BaseModel):
    """Train, segment, or both, with one image."""

    modelname: ModelName
    """The client's word for a model; QuPath's extension always says "default"."""
    b64img: str
    """PNG file in base64; empty where QuPath could not write one."""
    b64lbl: str | None = None
    """PNG file in base64: 0 not labelled, 1 background, n >= 2 cell n - 1."""
    train: bool = False
    """Whether to train."""
    eval: bool = False
    """Whether to answer the outlines of cells."""
    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Together with `steps`: how long to train."""
    trainpatch: int = 224
    """Crop height and width in pixels; the preset's unless it differs from this default."""
    batchsize: int = 8
    """Crops per step; the preset's unless it differs from this default."""
    steps: Annotated[int, Field(ge=1, le=10_000_000)] = 200
    """Steps per epoch."""
    lr: float = 0.001
    """Peak learning rate; the preset's unless it differs from this default."""
    minarea: Annotated[float, Field(ge=0, le=67_108_864)] = 10.0
    """Cells of fewer pixels are removed."""
    simplify_tol: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Outlines may leave the exact ones by so many pixels; None or 0 keeps them exact."""
    chan1: Annotated[int, Field(ge=0, le=4)] = 0
    """Cellpose: channel to segment, from 1; 0 means the mean of all."""
    chan2: Annotated[int, Field(ge=0, le=4)] = 0
    """Cellpose: channel of the nuclei, from 1; 0 means none."""
    n_channels_in: int = 1
    """StarDist: ignored, since one channel is made of however many there are."""


class ResetBody(BaseModel):
    """Forget a model."""

    modelname: ModelName
    """The client's word for it."""
    pretrained: str | None = None
    """Id of a model of this server to go on from; None starts from random weights."""


class PromptBody(BaseModel):
    """Outline what a click or box points at, as samapi 0.7.1 is asked to."""

    type: str | None = "vit_h"
    """The network that the user chose."""
    bbox: tuple[float, float, float, float] | None = None
    """Left, upper, right and lower edge in pixels."""
    point_coords: list[tuple[float, float]] | None = None
    """x and y in pixels."""
    point_labels: list[int] | None = None
    """1 inside the object, 0 outside."""
    b64img: str
    """PNG file in base64."""
    b64mask: str | None = None
    """A mask as prompt; only None is allowed."""
    multimask_output: bool = False
    """Whether to answer several proposals."""
    checkpoint_url: str | None = None
    """The URL of one of the weights offered."""


class AutoMaskBody(BaseModel):
    """Outline everything, as samapi 0.7.1 is asked to. Its other fields belong to networks and are ignored."""

    type: str | None = "vit_h"
    """The network that the user chose."""
    b64img: str
    """PNG file in base64."""
    min_mask_region_area: Annotated[int, Field(ge=0)] = 0
    """Objects of fewer pixels are left out."""
    checkpoint_url: str | None = None
    """The URL of one of the weights offered."""


def read_body(kind: type[AnyBody], data: bytes) -> AnyBody:
    """Return the body that JSON text holds.

    Raises:
        Refusal: It is not JSON, or a field is missing or not allowed. The sentence names the first such field.
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        what = f"The field {field} is not valid" if field else "The request's body is not valid"
        raise unprocessable(f"{what}: {first['msg']}.") from None
