"""From a napari image layer to the image of a dataset's item, and back to a layer's place in the viewer."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse.errors import InvalidArgument

MICROMETRES = {"pixel": 1.0, "micrometer": 1.0, "nanometer": 1e-3, "millimeter": 1e3}
"""Micrometres of a layer's unit. By convention the scale of a layer without units is in micrometres."""
LONGEST_NAME = 80
_CHANNEL_AXES = {"c", "ch", "channel", "channels"}
_TIME_AXES = {"t", "time", "frame", "frames"}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """What is needed of an image layer, so that it can be read in another thread."""

    name: str
    """Name of the layer."""
    data: Any
    """Its pixels, an array or something that becomes one; of a pyramid its finest level."""
    axes: str
    """Axes of the data: any number of "1" for leading axes of length 1, then YX, ZYX, or those with a C."""
    spacing: tuple[float, ...]
    """Micrometres per pixel along the planes, rows and columns of a stack; empty if not known or not a stack."""

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of a labels layer of this image: all axes but channels."""
        return tuple(length for length, axis in zip(self.data.shape, self.axes, strict=True) if axis != "C")

    @property
    def item_axes(self) -> str:
        """Axes of the array that `read` returns."""
        return self.axes.replace("1", "")


def picture(layer: Any) -> Picture:
    """Return what is needed of an image layer.

    Args:
        layer: A napari image layer.

    Raises:
        InvalidArgument: It is no image, or stack of planes, of 1 to 4 channels.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    axes = _axes(layer.name, data.shape, tuple(layer.axis_labels), rgb=bool(layer.rgb))
    return Picture(name=str(layer.name), data=data, axes=axes, spacing=_spacing(layer, axes))


def read(image: Picture) -> npt.NDArray[np.generic]:
    """Return the pixels, without leading axes of length 1 and without the opacity of an RGBA image.

    Raises:
        InvalidArgument: The pixels are no numbers.
    """
    array: npt.NDArray[np.generic] = np.asarray(image.data)
    array = array.reshape(array.shape[image.axes.count("1") :])
    if image.axes.endswith("C") and array.shape[-1] == 4:
        array = array[..., :3]
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind not in "iuf":
        raise InvalidArgument(f"Image {image.name!r} holds values of type {array.dtype}; allowed: numbers.", "image")
    if array.dtype.kind == "f" and array.dtype.itemsize != 4:
        return array.astype(np.float32)
    return array


def read_labels(data: Any, image: Picture, layer: str) -> npt.NDArray[np.generic]:
    """Return the numbers of a labels layer as an array of the size of its image.

    Args:
        data: Data of the labels layer.
        image: The image.
        layer: Name of the labels layer, for messages.

    Raises:
        InvalidArgument: It has another size than the image.
    """
    array: npt.NDArray[np.generic] = np.asarray(data)
    wanted = image.label_shape
    plain = wanted[image.axes.count("1") :]
    if array.shape not in (wanted, plain):
        raise InvalidArgument(
            f"Layer {layer!r} has the size {_size(array.shape)}, image {image.name!r} {_size(wanted)}; choose a labels "
            "layer that was made for this image.",
            "labels",
        )
    return array.reshape(plain)


def placement(layer: Any, image: Picture) -> dict[str, Any]:
    """Return where a labels layer of an image belongs, as arguments of `add_labels`."""
    axes = image.axes.removesuffix("C") if layer.rgb else image.axes
    kept = [index for index, axis in enumerate(axes) if axis != "C"]
    place = {
        "scale": np.asarray(layer.scale)[kept],
        "translate": np.asarray(layer.translate)[kept],
        "units": [layer.units[index] for index in kept],
        "axis_labels": [layer.axis_labels[index] for index in kept],
    }
    if len(kept) == len(axes):  # a rotation cannot be taken apart when an axis is left out
        place |= {"rotate": layer.rotate, "shear": layer.shear, "affine": layer.affine}
    return place


def item_names(names: Iterable[str]) -> Iterator[str]:
    """Yield names that a dataset accepts, each only once."""
    taken: set[str] = set()
    for name in names:
        plain = plain_name(name)
        number, unique = 1, plain
        while unique in taken:
            number += 1
            unique = f"{plain} {number}"
        taken.add(unique)
        yield unique


def plain_name(name: str) -> str:
    """Return a name without characters that a server refuses."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", " ", name).lstrip("._ -")[:LONGEST_NAME].rstrip()
    return plain or "image"


def _axes(name: str, shape: Sequence[int], labels: Sequence[str], *, rgb: bool) -> str:
    spatial = len(shape) - rgb
    named = ["C" if label.lower() in _CHANNEL_AXES else "?" for label in labels[:spatial]]
    for label, length in zip(labels, shape, strict=False):
        if label.lower() in _TIME_AXES and length > 1:
            raise InvalidArgument(
                f"Image {name!r} has an axis {label!r} of {length} points in time; make the one to train on a layer of "
                "its own.",
                "image",
            )
    axes = [*named, *(["C"] if rgb else [])]
    leading = 0
    while len(axes) - leading - axes.count("C") > 2 and shape[leading] == 1 and axes[leading] == "?":
        leading += 1
    others = [index for index in range(leading, len(axes)) if axes[index] == "?"]
    if len(others) not in (2, 3) or axes.count("C") > 1:
        raise InvalidArgument(
            f"Image {name!r} has the size {_size(shape)}; allowed: one plane, or one stack of planes. Split other axes "
            "into layers of their own, or name the channels' axis 'c' in the layer's axis_labels.",
            "image",
        )
    for index, axis in zip(others, "YX" if len(others) == 2 else "ZYX", strict=True):
        axes[index] = axis
    return "1" * leading + "".join(axes[leading:])


def _spacing(layer: Any, axes: str) -> tuple[float, ...]:
    """Return the spacing of a stack. Only ratios matter for training, so a scale of 1 everywhere says nothing."""
    if "Z" not in axes:
        return ()
    kept = [index for index, axis in enumerate(axes) if axis in "ZYX"]
    factors = [MICROMETRES.get(str(layer.units[index]), 0.0) for index in kept]
    spacing = tuple(float(layer.scale[index]) * factor for index, factor in zip(kept, factors, strict=True))
    return spacing if min(spacing) > 0 and set(spacing) != {1.0} else ()


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
