"""Runs inside a container: says whose every file is, and how large. Needs the standard library only.

Standard input: JSON {"base": {path: bytes}, "groups": {package: group}}. Standard output: JSON
{"groups": {group: bytes}, "packages": {package: bytes}, "ours_gzip": bytes, "weights": [path]}.

A file that the base has, too, with the same size, is group "base"; a file of an installed package is of the package's
group; all else is "ours". Files of "ours" are packed as registries store layers, tar and gzip, to see what is pulled.
"""

import importlib.metadata
import json
import os
import re
import stat
import sys
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator

NOT_OF_THE_IMAGE = ("/proc", "/sys", "/dev", "/tmp")
WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors", ".h5", ".hdf5", ".keras", ".onnx", ".pb")
LARGE_BYTES = 2**20


class GzipCounter:
    """Counts what a gzip file would hold."""

    def __init__(self) -> None:
        self._gzip = zlib.compressobj(6, zlib.DEFLATED, 31)
        self.bytes = 0

    def write(self, data: bytes) -> int:
        """Take what would be written."""
        self.bytes += len(self._gzip.compress(data))
        return len(data)

    def finish(self) -> int:
        """Return the size of the file."""
        self.bytes += len(self._gzip.flush())
        return self.bytes


def files(root: str) -> Iterator[tuple[str, int]]:
    """Yield path and bytes of every regular file under a folder; hard links once."""
    seen = set()
    for folder, folders, names in os.walk(root):
        folder = folder.rstrip("/")
        folders[:] = [name for name in folders if f"{folder}/{name}" not in NOT_OF_THE_IMAGE]
        for name in names:
            path = f"{folder}/{name}"
            status = os.lstat(path)
            key = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode) and (status.st_nlink == 1 or key not in seen):
                seen.add(key)
                yield path, status.st_size


def owners() -> dict[str, str]:
    """Return the package of every installed file, by path; bytecode is not listed."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
        for path in distribution.files or ():
            found[os.path.normpath(distribution.locate_file(path))] = name
    return found


def source(path: str) -> str:
    """Return the source of a bytecode file; any other path as it is."""
    folder, cache, name = path.rpartition("/__pycache__/")
    return f"{folder}/{name.split('.')[0]}.py" if cache else path


def main(root: str = "/") -> None:
    """Read what to compare with, look at every file under a folder, print the sums."""
    asked = json.load(sys.stdin)
    of_package = owners()
    groups: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    weights = []
    counter = GzipCounter()
    with tarfile.open(fileobj=counter, mode="w|") as archive:
        for path, size in files(root):
            package = of_package.get(source(path), "")
            group = "base" if asked["base"].get(path) == size else asked["groups"].get(package, "ours")
            groups[group] += size
            if group == "base":
                continue
            packages[package or "/".join(path.split("/")[:3])] += size
            if group == "ours" and os.access(path, os.R_OK):
                archive.add(path, recursive=False)
            if size >= LARGE_BYTES and path.endswith(WEIGHTS):
                weights.append(path)
    json.dump({"groups": groups, "packages": packages, "ours_gzip": counter.finish(), "weights": weights}, sys.stdout)


if __name__ == "__main__":
    main()
