"""TensorFlow and StarDist, imported in one place: stock StarDist needs Keras 2, chosen before TensorFlow is loaded."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from importlib.metadata import version

from cellsparse_trainer.config.device import missing_gpu

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from stardist import Rays_GoldenSpiral
from stardist.geometry import polygons_to_label, star_dist, star_dist3D
from stardist.models import Config2D, Config3D, StarDist2D, StarDist3D
from stardist.nms import non_maximum_suppression_sparse
from stardist.utils import edt_prob
from tensorflow.python.eager import context

__all__ = [
    "Config2D",
    "Config3D",
    "Rays_GoldenSpiral",
    "StarDist2D",
    "StarDist3D",
    "devices",
    "edt_prob",
    "has_computed",
    "non_maximum_suppression_sparse",
    "polygons_to_label",
    "quiet",
    "star_dist",
    "star_dist3D",
    "tf",
    "use_device",
    "versions",
]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what csbdeep and stardist print, and their warnings about existing folders."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide the numbers, by name."""
    return {name: version(name) for name in ("csbdeep", "numpy", "stardist", "tensorflow", "tf-keras")}


def devices() -> list[str]:
    """Return the devices TensorFlow finds, such as "cpu" or "cuda:0 NVIDIA A100"."""
    found = ["cpu"]
    for i, gpu in enumerate(tf.config.list_physical_devices("GPU")):
        name = tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        found.append(f"cuda:{i} {name}")
    return found


def has_computed() -> bool:
    """Whether TensorFlow has started its threads in this process."""
    return context.context()._context_handle is not None


def use_device(device: str) -> str:
    """Make this process compute on the device, with no more GPU memory than it needs.

    Args:
        device: "auto", "cpu" or "cuda".

    Returns:
        "cpu" or "cuda": what it will compute on.

    Raises:
        InvalidArgument: "cuda" was asked for and TensorFlow finds no GPU.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if device == "cuda" and not gpus:
        raise missing_gpu()
    if device == "cpu" or not gpus:
        tf.config.set_visible_devices([], "GPU")
        return "cpu"
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return "cuda"
