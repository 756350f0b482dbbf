"""Proposals from a Segment Anything model that a user brings: an encoder and a decoder in ONNX.

Their inputs and outputs are those of the official decoder export and of samexporter. Weights are never fetched here.
"""

import hashlib
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cellsparse_common.cpus import limited_cpus
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.classical.pixels import finite
from cellsparse_common.onnx_file import check_onnx
from cellsparse_gateway.prompts.shown import Shown, show
from cellsparse_gateway.prompts.types import NOTHING, Plane, Prompt, Proposal, ordered

SIDE = 1024
"""Longer side of what the encoder sees, pixels."""
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
SPREAD = np.array([58.395, 57.12, 57.375], np.float32)
"""Mean and standard deviation of the colours that SAM was trained on."""
EMBEDDINGS = 8
"""Most windows whose embedding is kept; one is 4 MB."""
DECODER_INPUTS = {"image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"}
FOREGROUND, BACKGROUND, PADDING, TOP_LEFT, BOTTOM_RIGHT = 1, 0, -1, 2, 3
"""What a point means to the decoder."""


def read_onnx(path: Path) -> bytes:
    """Return an ONNX file's bytes.

    Raises:
        InvalidArgument: It is not there, too large, or no ONNX file.
    """
    check_onnx(path, str(path))
    return path.read_bytes()


class OnnxSam:
    """Segment Anything in ONNX Runtime. Safe to use from many threads.

    Args:
        encoder: The encoder's file.
        decoder: The decoder's file.
        licence: Licence of the weights, for people.

    Raises:
        InvalidArgument: ONNX Runtime is not installed, or the files are not such a pair.
    """

    name = "onnx-sam"
    title = "Segment Anything"

    def __init__(self, encoder: bytes, decoder: bytes, licence: str) -> None:
        self.licence = licence
        self._encoder, self._decoder = _session(encoder, "encoder"), _session(decoder, "decoder")
        self._input = self._encoder.get_inputs()[0]
        self._outputs = [each.name for each in self._decoder.get_outputs()]
        self._lock = threading.Lock()
        self._embeddings: OrderedDict[bytes, npt.NDArray[np.float32]] = OrderedDict()
        self._check()

    def propose(self, prompt: Prompt) -> list[Proposal]:
        """Return the decoder's masks in ascending order of area, or `NOTHING` alone.

        Raises:
            InvalidArgument: The model fails on this image.
            ValueError: The image has no pixel or other axes than YX or YXC.
        """
        height, width = prompt.image.shape[:2]
        shown = show(prompt, height, width)
        if shown is None:
            return [NOTHING]
        colours = _colours(prompt.image)
        try:
            logits, quality = self._decode(self._embedding(colours), shown, (height, width))
        except Exception as error:  # noqa: BLE001 # whatever a stranger's graph raises
            raise InvalidArgument(f"The model fails on {width} x {height} pixels: {str(error)[:200]}.") from None
        masks = [shown.allow(each > 0) for each in logits]
        return ordered([(mask, float(np.clip(value, 0, 1))) for mask, value in zip(masks, quality, strict=True)])

    def _embedding(self, colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        key = hashlib.sha256(repr(colours.shape).encode() + colours.tobytes()).digest()
        with self._lock:
            kept = self._embeddings.get(key)
            if kept is not None:
                self._embeddings.move_to_end(key)
                return kept
        made: npt.NDArray[np.float32] = self._encoder.run(None, {self._input.name: self._prepare(colours)})[0]
        with self._lock:
            self._embeddings[key] = made
            while len(self._embeddings) > EMBEDDINGS:
                self._embeddings.popitem(last=False)
        return made

    def _prepare(self, colours: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the encoder's input: colours HWC if it prepares them itself, else normalised and padded NCHW."""
        height, width = _resized(colours.shape[:2])
        image = _resize(colours.astype(np.float32), height, width)
        if len(self._input.shape) == 3:
            return image
        image = (image - MEAN) / SPREAD
        padded = np.zeros((1, 3, SIDE, SIDE), np.float32)
        padded[0, :, :height, :width] = image.transpose(2, 0, 1)
        return padded

    def _decode(self, embedding: Any, shown: Shown, shape: tuple[int, int]) -> tuple[list[Plane], list[float]]:
        height, width = _resized(shape)
        scale = np.array([width / shape[1], height / shape[0]])
        places = [(x + 0.5, y + 0.5, FOREGROUND) for y, x in shown.positive if not shown.from_box]
        places += [(x + 0.5, y + 0.5, BACKGROUND) for y, x in shown.negative]
        if shown.box:
            rows, columns = shown.box
            places += [(columns.start, rows.start, TOP_LEFT), (columns.stop, rows.stop, BOTTOM_RIGHT)]
        else:
            places.append((0.0, 0.0, PADDING))
        coordinates = np.array([place[:2] for place in places]) * scale
        answers = self._decoder.run(
            None,
            {
                "image_embeddings": embedding,
                "point_coords": coordinates[None].astype(np.float32),
                "point_labels": np.array([[place[2] for place in places]], np.float32),
                "mask_input": np.zeros((1, 1, 256, 256), np.float32),
                "has_mask_input": np.zeros(1, np.float32),
                "orig_im_size": np.array(shape, np.float32),
            },
        )
        found = dict(zip(self._outputs, answers, strict=True))
        # Low-resolution masks first: the official export freezes the aspect ratio of its example in the others.
        if "low_res_masks" in found:
            small = found["low_res_masks"][0]
            step = small.shape[-1] / SIDE
            logits = [_enlarge(each, shape, height * step, width * step) for each in small]
        else:
            logits = [_enlarge(each, shape, *each.shape) for each in found["masks"][0]]
        return logits, [float(value) for value in found["iou_predictions"].reshape(-1)]

    def _check(self) -> None:
        """Run both once on noise.

        Raises:
            InvalidArgument: They do not work together.
        """
        missing = DECODER_INPUTS - {each.name for each in self._decoder.get_inputs()}
        if missing:
            raise InvalidArgument(f"The decoder has no input {', '.join(sorted(missing))}: it is not one of SAM.")
        if "iou_predictions" not in self._outputs or not {"masks", "low_res_masks"} & set(self._outputs):
            raise InvalidArgument(
                f"The decoder's outputs are {', '.join(self._outputs)}: masks and iou_predictions lack."
            )
        image = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
        try:
            logits, quality = self._decode(self._embedding(image), Shown(((20, 30),), (), None), (48, 64))
        except Exception as error:  # noqa: BLE001 # whatever a stranger's graph raises
            raise InvalidArgument(f"The encoder and decoder do not work together: {str(error)[:200]}.") from None
        if len(quality) != len(logits) or not all(np.isfinite(each).all() for each in (*logits, np.array(quality))):
            raise InvalidArgument("The self-test of the encoder and decoder gave values that are no masks.")


def _session(data: bytes, what: str) -> Any:
    # Since 1.29 builds for Linux, too, note what they run in the home folder and report it to their maker.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError:
        raise InvalidArgument("ONNX Runtime is not installed: install the gateway with its extra `sam`.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = limited_cpus() or 0  # 0: one for each core that it finds
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 # ONNX Runtime raises many kinds
        raise InvalidArgument(f"The {what} is no model that ONNX Runtime can run: {str(error)[:200]}.") from None


def _colours(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return an image as 8-bit RGB: grey repeated, of two channels red and green, of more the first three."""
    planes = finite(image)
    count = planes.shape[2]
    rgb = np.repeat(planes, 3, 2) if count == 1 else np.zeros((*planes.shape[:2], 3), np.float32)
    if count > 1:
        rgb[..., : min(count, 3)] = planes[..., :3]
    result: npt.NDArray[np.uint8] = np.round(rgb * 255).astype(np.uint8)
    return result


def _resized(shape: tuple[int, ...]) -> tuple[int, int]:
    scale = SIDE / max(shape)
    return max(1, int(shape[0] * scale + 0.5)), max(1, int(shape[1] * scale + 0.5))


def _resize(image: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    return np.stack([_enlarge(image[..., c], (height, width), *image.shape[:2]) for c in range(3)], axis=2)


def _enlarge(plane: Plane, shape: tuple[int, int], height: float, width: float) -> Plane:
    """Sample the upper left `height` x `width` pixels of a plane on a grid of another shape, bilinearly."""
    rows = (np.arange(shape[0]) + 0.5) * (height / shape[0]) - 0.5
    columns = (np.arange(shape[1]) + 0.5) * (width / shape[1]) - 0.5
    places = np.meshgrid(rows, columns, indexing="ij")
    result: Plane = ndimage.map_coordinates(plane, places, order=1, mode="nearest")
    return result
