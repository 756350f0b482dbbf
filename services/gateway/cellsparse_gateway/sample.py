"""The sample: fluorescent nuclei that come with the stardist package, for a first project."""

import importlib.util
from pathlib import Path

from cellsparse_gateway.problems import Problem

FILE = Path("data", "images", "img2d.tif")
NAME = "nuclei.tif"
PROJECT = "Sample: nuclei"


def sample_file(given: Path | None) -> Path:
    """Return the file of the sample image. The package is looked up, not imported, as that takes seconds.

    Args:
        given: A file to use instead.

    Raises:
        Problem: There is none.
    """
    if given is not None:
        if given.is_file():
            return given
        raise Problem(404, f"There is no sample here: CELLSPARSE_GATEWAY_SAMPLE names {given}, which is no file.")
    spec = importlib.util.find_spec("stardist")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    raise Problem(
        404,
        "There is no sample here: its image comes with the Python package stardist, which is not installed beside the "
        "gateway; CELLSPARSE_GATEWAY_SAMPLE may name an image file instead.",
    )
