"""Small pictures of images."""

import io
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from cellsparse_gateway.calls import ASK_SECONDS, Orchestrator
from cellsparse_proto.v1 import project_pb2

TILE = 512
COLOURS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32)
"""Colours of the channels of an image with several."""


def thumbnail(orchestrator: Orchestrator, image_id: str, size: int) -> bytes:
    """Return a PNG whose longer side has `size` pixels, of the middle plane of a stack.

    Raises:
        grpc.RpcError: There is no such image.
    """
    image = orchestrator.projects.GetImage(project_pb2.GetImageRequest(image_id=image_id), timeout=ASK_SECONDS).image
    level = 0
    while level < image.levels - 1 and max(image.height, image.width) >> (level + 1) >= size:
        level += 1
    channels = [
        stretch(_level(orchestrator, image, level, channel), image.contrast[channel])
        for channel in range(min(image.channels, len(COLOURS)))
    ]
    picture = Image.fromarray(mix(channels))
    scale = size / max(picture.size)
    shape = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    out = io.BytesIO()
    picture.resize(shape, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def stretch(pixels: npt.NDArray[Any], contrast: "project_pb2.ContrastRange") -> npt.NDArray[np.float32]:
    """Return pixels as 0 (black) to 1 (white)."""
    width = max(contrast.high - contrast.low, 1e-12)
    return np.clip((pixels.astype(np.float32) - contrast.low) / width, 0.0, 1.0)


def mix(channels: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.uint8]:
    """Return one channel as grey (YX), several as red, green, blue and white (YXC), 0 to 255."""
    if len(channels) == 1:
        return (channels[0] * 255 + 0.5).astype(np.uint8)
    colour = np.zeros((*channels[0].shape, 3), np.float32)
    for channel, shade in zip(channels, COLOURS, strict=False):
        colour += channel[..., None] * shade
    return (np.clip(colour, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)


def _level(orchestrator: Orchestrator, image: Any, level: int, channel: int) -> npt.NDArray[Any]:
    height, width = (-(-side // 2**level) for side in (image.height, image.width))
    pixels = np.zeros((height, width), np.dtype(image.dtype).newbyteorder("<"))
    for y in range(-(-height // TILE)):
        for x in range(-(-width // TILE)):
            place = {"level": level, "x": x, "y": y, "plane": image.planes // 2}
            request = project_pb2.GetImageTileRequest(image_id=image.id, place=place, channel=channel)
            tile = orchestrator.projects.GetImageTile(request, timeout=ASK_SECONDS)
            part = np.frombuffer(zlib.decompress(tile.data), pixels.dtype).reshape(tile.height, tile.width)
            pixels[y * TILE : y * TILE + tile.height, x * TILE : x * TILE + tile.width] = part
    return pixels
