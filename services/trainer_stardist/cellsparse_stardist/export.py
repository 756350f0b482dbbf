"""StarDist models as files for other tools."""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_stardist.config import Config
from cellsparse_stardist.framework import quiet, tf, use_device, versions
from cellsparse_stardist.network import FOLDER, read_config, read_model, stock_class
from cellsparse_trainer.contract import Exporter
from cellsparse_trainer.models.bioimage import Network, input_names, input_sentence, write_package
from cellsparse_trainer.models.exports import write_zip
from cellsparse_trainer.models.outline_refinement import export_note, read_level

_README = """# A StarDist model

Opens in stock StarDist with its thresholds, here from this file's folder:

    from csbdeep.utils import normalize
    from stardist.models import {kind}

    model = {kind}(None, name="{name}", basedir=".")
    labels, details = model.predict_instances(normalize(image, {lower:g}, {upper:g}{axis}, clip=True))
{channels}"""

_OUTPUTS = """# A StarDist model

The first output channel is the probability that a pixel lies in a cell, the others are the distances in pixels from it
to the cell's border along {rays} directions. StarDist's non-maximum suppression makes cells of them, with probability
threshold {prob:g} and overlap threshold {nms:g}.
"""
_CITE = {
    2: {
        "text": "Schmidt, U., Weigert, M., Broaddus, C. & Myers, G. Cell Detection with Star-Convex Polygons. "
        "MICCAI (2018).",
        "doi": "10.1007/978-3-030-00934-2_30",
    },
    3: {
        "text": "Weigert, M., Schmidt, U., Haase, R., Sugawara, K. & Myers, G. Star-convex Polyhedra for 3D Object "
        "Detection and Segmentation in Microscopy. WACV (2020).",
        "doi": "10.1109/WACV45572.2020.9093435",
    },
}
"""Publications of the tool, by the number of axes."""


def native(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the folder that stock StarDist opens, and how."""
    how, stored = card["preprocessing"], read_config(source)
    kind = stock_class(Config.from_dict(stored.config)).__name__
    shutil.copytree(source / FOLDER, target / FOLDER)
    several = bool(how.get("channels"))
    text = _README.format(
        kind=kind,
        name=FOLDER,
        lower=how["lower_percentile"],
        upper=how["upper_percentile"],
        axis=f", axis={(0, 1) if kind == 'StarDist2D' else (0, 1, 2)}" if several else "",
        channels=f"\nThe image has channels last: {input_sentence(card)}.\n" if several else "",
    )
    (target / "README.md").write_text(text + export_note(read_level(stored.fitted)))


def saved_model(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write what stock `export_TF` writes: a SavedModel with one output of the input's size."""
    _export_tf(_open(source), target)


def bioimageio(source: Path, target: Path, card: Mapping[str, Any]) -> None:
    """Write the content of a BioImage.IO package around the SavedModel."""
    stock = _open(source)
    bundle = target / "bundle"
    bundle.mkdir()
    _export_tf(stock, bundle)
    write_zip(bundle, target / "saved_model.zip")
    network = tf.saved_model.load(str(bundle)).signatures["serving_default"]

    def run(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        output: npt.NDArray[np.float32] = network(tf.constant(image))["output"].numpy()
        return output

    rays, found = stock.config.n_rays, stock.thresholds
    *depth, _, side = (step * 2**stock.config.unet_n_depth for step in stock.config.grid)
    described = Network(
        title="StarDist",
        weights="tensorflow_saved_model_bundle",
        file="saved_model.zip",
        framework={"tensorflow_version": versions()["tensorflow"]},
        inputs=input_names(card),
        outputs=("prob", *(f"dist{ray}" for ray in range(rays))),
        channels_last=True,
        multiple=side,
        depth_multiple=depth[0] if depth else None,
        cite=_CITE[len(stock.config.grid)],
        documentation=_OUTPUTS.format(rays=rays, prob=found.prob, nms=found.nms),
        config={"stardist": {"thresholds": {"prob": float(found.prob), "nms": float(found.nms)}}},
    )
    write_package(target, card, described, run)
    shutil.rmtree(bundle)


def _open(source: Path) -> Any:
    use_device("auto")  # before the first network: else TensorFlow takes all of a GPU's memory, for good
    return read_model(source).stock


def _export_tf(stock: Any, target: Path) -> None:
    packed = target / "stock.zip"
    with quiet():
        stock.export_TF(str(packed))
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(target)
    packed.unlink()


EXPORTS: dict[str, Exporter] = {"native": native, "saved_model": saved_model, "bioimageio": bioimageio}
