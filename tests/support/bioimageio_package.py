"""Validates BioImage.IO packages with the format's own libraries, without a network."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from bioimageio.core import test_description
from bioimageio.spec import ValidationContext, load_description
from bioimageio.spec.model.v0_5 import ModelDescr
from support.limits import PATIENCE

from cellsparse_trainer.models.exports import write_zip

CARD = {
    "run_id": "run-0123456789ab",
    "backend": "test",
    "step": 4,
    "validation": {"score": 0.75},
    "preprocessing": {"channel": None, "lower_percentile": 1.0, "upper_percentile": 99.8},
}

_TEST = """
import sys
from bioimageio.core import test_description
summary = test_description(sys.argv[1], devices=["cpu"])
sys.exit(summary.status != "passed" and summary.format())
"""


def run_test(zipped: Path, described: ModelDescr) -> None:
    """Let the format's runtime feed the network with the test input and compare what comes out with the test output."""
    if described.weights.tensorflow_saved_model_bundle is None:
        summary = test_description(described, devices=["cpu"])
        assert summary.status == "passed", summary.format()
        return
    # The runtime loads TensorFlow's models with Keras 3, StarDist needs Keras 2: a process holds one of them.
    command, environment = [sys.executable, "-c", _TEST, str(zipped)], {**os.environ, "TF_USE_LEGACY_KERAS": "0"}
    done = subprocess.run(
        command,
        env=environment,
        cwd=zipped.parent,  # it unpacks weights where it stands
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def validated(files: Path, unpacked: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """Zip a package's files as the trainer does, validate the zip, run its network on its test input, and unpack it.

    Args:
        files: The package's files.
        unpacked: Folder for them after the round trip.

    Returns:
        The weights, the test input after the preprocessing that the description tells, and the test output.
    """
    zipped = files.with_suffix(".zip")
    write_zip(files, zipped)
    # With checks: files, hashes, shapes and tolerances are compared. None of that needs a network.
    with ValidationContext(perform_io_checks=True):
        described = load_description(zipped)
    assert isinstance(described, ModelDescr), described.validation_summary.format()
    assert described.validation_summary.status != "failed", described.validation_summary.format()
    run_test(zipped, described)
    assert str(described.license) == "BSD-3-Clause"
    assert described.cite[0].doi == "10.1101/2023.06.13.544786"
    assert len(described.cite) == 2
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(unpacked)
    (weights,) = (entry for _, entry in described.weights if entry is not None)
    steps = {step.id: step.kwargs for step in described.inputs[0].preprocessing}
    axes = tuple([axis.id for axis in described.inputs[0].axes].index(name) for name in steps["scale_range"].axes)
    image = np.load(unpacked / "test_input.npy")
    low, high = (
        np.percentile(image, percentile, axis=axes, keepdims=True)
        for percentile in (steps["scale_range"].min_percentile, steps["scale_range"].max_percentile)
    )
    scaled = np.clip((image - low) / (high - low + steps["scale_range"].eps), steps["clip"].min, steps["clip"].max)
    name = str(weights.source).rpartition("/")[2]
    return unpacked / name, scaled.astype(np.float32), np.load(unpacked / "test_output.npy")
