"""Prompts of QuPath's SAM extension, answered by prompters that need no weights of SAM."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_common.imaging.classical.whole import segment_all
from cellsparse_common.imaging.outlines import label_outlines
from cellsparse_gateway.prompts.types import Box, Point, Prompt, Prompter, Proposal, best
from cellsparse_gateway.qupath.bodies import AutoMaskBody, PromptBody
from cellsparse_gateway.qupath.features import Feature, geometry
from cellsparse_gateway.qupath.pictures import read_picture
from cellsparse_gateway.qupath.refusals import unprocessable

MAX_PIXELS = 2**26
"""Most pixels of an image; QuPath sends what its viewer shows."""
MARGIN = 320
"""Pixels around a prompt that are looked at; a cell at the magnification at which people click is much smaller."""
GRID = 128
"""Pixels by which the parts of an image move that networks see, so that clicks beside each other share an embedding."""
DEFAULT = "classical"
URL = "cellsparse:"
TYPES = ("vit_h", "vit_l", "vit_b", "vit_t", "sam2_l", "sam2_bp", "sam2_s", "sam2_t", "sam3")
"""Networks that the extension asks weights for."""


def weights(prompters: Mapping[str, Prompter], kind: str | None) -> list[dict[str, str]]:
    """Return the weights to choose from for one network, or for all.

    The extension fails on an empty list. So every network has all prompters, whatever its name.
    """
    return [
        {"type": name, "name": _title(prompter), "url": URL + prompter.name}
        for name in ([kind] if kind else TYPES)
        for prompter in prompters.values()
    ]


def answer_prompt(prompters: Mapping[str, Prompter], body: PromptBody) -> list[Feature]:
    """Return the outline of what a prompt points at: the likeliest, or several by rising size if they are asked for.

    Raises:
        Refusal: There is no prompt inside the image, or the request is not valid.
    """
    if body.b64mask:
        raise unprocessable("The field b64mask is not supported; allowed: null. Use points or a box.")
    prompter = _chosen(prompters, body.checkpoint_url)
    image = _read(body.b64img)
    prompt, left, top = _window(_prompt(image, body), 1 if prompter.name == DEFAULT else GRID)
    proposals = prompter.propose(prompt)
    if not body.multimask_output:
        proposals = [proposals[best(proposals)]]
    shape = image.shape[0], image.shape[1]
    return [_feature(_moved(proposal, left, top), shape, body.type) for proposal in proposals if proposal.mask.any()]


def answer_everything(body: AutoMaskBody) -> list[Feature]:
    """Return the outlines of all cells.

    Raises:
        Refusal: The request is not valid.
    """
    label = segment_all(_read(body.b64img), min_pixels=body.min_mask_region_area or None)
    return [
        {"type": "Feature", "geometry": geometry(outline), "properties": {"label": "object", "sam_model": body.type}}
        for outline in label_outlines(label)
    ]


def _title(prompter: Prompter) -> str:
    return "cellsparse (no weights)" if prompter.name == DEFAULT else f"cellsparse: {prompter.title}"


def _chosen(prompters: Mapping[str, Prompter], url: str | None) -> Prompter:
    """Return the prompter that a URL of `weights` names; the one without weights for any other URL."""
    return prompters.get((url or "").removeprefix(URL), prompters[DEFAULT])


def _read(text: str) -> npt.NDArray[Any]:
    """Return the image; of a grey one in three equal channels, as QuPath renders it, the first."""
    array = read_picture(text, MAX_PIXELS).array
    if array.ndim == 3 and all(np.array_equal(array[..., 0], array[..., at]) for at in range(1, array.shape[2])):
        return np.ascontiguousarray(array[..., 0])
    return array


def _prompt(image: npt.NDArray[Any], body: PromptBody) -> Prompt:
    height, width = image.shape[:2]
    coordinates = body.point_coords or []
    labels = body.point_labels or []
    if len(coordinates) != len(labels):
        raise unprocessable(
            f"There are {len(coordinates)} point_coords and {len(labels)} point_labels; there must be as many."
        )
    # Coordinates are numbers of pixels: the middle of the pixel is meant.
    points = tuple(
        Point(x=x + 0.5, y=y + 0.5, positive=bool(label))
        for (x, y), label in zip(coordinates, labels, strict=True)
        if 0 <= x < width and 0 <= y < height
    )
    box = None
    if body.bbox is not None:
        left, top, right, bottom = body.bbox
        box = Box(left=max(0, left), top=max(0, top), right=min(width, right), bottom=min(height, bottom))
        if box.left >= box.right or box.top >= box.bottom:
            raise unprocessable(f"The box {body.bbox} has no pixel in the image of {width} x {height} pixels.")
    if box is None and not any(point.positive for point in points):
        raise unprocessable("There is no point inside an object and no box in the part of the image that was sent.")
    return Prompt(image=image, points=points, box=box)


def _window(prompt: Prompt, step: int) -> tuple[Prompt, int, int]:
    """Return a prompt in the part of its image that matters, and where that part begins: x and y in pixels.

    Args:
        prompt: A prompt in a whole image.
        step: The part's edges are multiples of this, or the image's.
    """
    shown = [(point.x, point.y) for point in prompt.points]
    if prompt.box is not None:
        shown += [(prompt.box.left, prompt.box.top), (prompt.box.right, prompt.box.bottom)]
    height, width = prompt.image.shape[:2]
    left, right = _around([x for x, _ in shown], width, step)
    top, bottom = _around([y for _, y in shown], height, step)
    box = prompt.box and Box(
        left=prompt.box.left - left,
        top=prompt.box.top - top,
        right=prompt.box.right - left,
        bottom=prompt.box.bottom - top,
    )
    points = tuple(replace(point, x=point.x - left, y=point.y - top) for point in prompt.points)
    return Prompt(image=prompt.image[top:bottom, left:right], points=points, box=box), left, top


def _around(places: list[float], length: int, step: int) -> tuple[int, int]:
    """Return the first pixel near some places, and the one behind the last."""
    first, behind = (int(min(places)) - MARGIN) // step * step, -(-(int(max(places)) + MARGIN + 1) // step) * step
    return max(0, first), min(length, behind)


def _moved(proposal: Proposal, left: int, top: int) -> Proposal:
    return replace(proposal, x=proposal.x + left, y=proposal.y + top)


def _feature(proposal: Proposal, shape: tuple[int, int], kind: str | None) -> Feature:
    """Return a proposal as a feature. It has no object_idx: the extension would make that its class."""
    label = np.zeros(shape, np.int32)
    height, width = proposal.mask.shape
    label[proposal.y : proposal.y + height, proposal.x : proposal.x + width] = proposal.mask
    (outline,) = label_outlines(label)
    properties = {"label": "object", "quality": round(float(proposal.quality), 4), "sam_model": kind}
    return {"type": "Feature", "geometry": geometry(outline), "properties": properties}
