"""Lists all images that the chart uses with some values, those of training Jobs too: `make chart-images VALUES=file`.

One line per image: where it comes from and, with `images.mirror`, a blank and where the cluster looks for it.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
HELM = ROOT / ".tools" / "bin" / "helm"
_IMAGE = re.compile(r"^\s*(?:- )?image: \"?([^\s\"]+)", re.MULTILINE)


def images(*options: str) -> list[str]:
    """Return the images of the chart, in the order of their first use.

    Args:
        options: Further arguments of `helm template`.

    Raises:
        subprocess.CalledProcessError: Helm refuses the values.
    """
    command = [HELM, "template", "lab", ROOT / "helm" / "cellsparse", *options]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return list(dict.fromkeys(_IMAGE.findall(text)))


def main() -> None:
    """Print the images for the files of values that the command line names."""
    files = [f"--values={file}" for file in sys.argv[1:]]
    for source, target in zip(images(*files, "--set=images.mirror="), images(*files), strict=True):
        sys.stdout.write(source if source == target else f"{source} {target}")
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
