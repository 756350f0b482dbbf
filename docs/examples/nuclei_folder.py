"""Writes the nuclei image that ships with the stardist package as a folder of tiles for `cellsparse dataset import`.

Usage: python docs/examples/nuclei_folder.py FOLDER
"""

import sys
from pathlib import Path

import tifffile

from cellsparse.demo.source import cut, stardist_files


def write(folder: Path) -> None:
    """Write FOLDER/{train,val,test}/{images,masks}/*.tif; labels are dense: 0 background, n cell n."""
    files = dict(zip(("images", "masks"), stardist_files(), strict=True))
    for kind, path in files.items():
        pixels = tifffile.imread(path)
        for split, windows in cut(*pixels.shape).items():
            target = folder / split / kind
            target.mkdir(parents=True, exist_ok=True)
            for number, window in enumerate(windows):
                tifffile.imwrite(target / f"{split}-{number}.tif", pixels[window], compression="zlib")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
