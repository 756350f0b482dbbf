"""Datasets from a zip of folders, as `cellsparse dataset import` takes them from a disk."""

import random
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.calls import WORK_SECONDS, Orchestrator
from cellsparse_gateway.zip_files import open_zip, read_member
from cellsparse_proto.v1 import common_pb2, dataset_pb2

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".geojson", ".zip")
SPLITS = {"train": common_pb2.SPLIT_TRAIN, "val": common_pb2.SPLIT_VAL, "test": common_pb2.SPLIT_TEST}
SHARE = 0.2
"""Of the items, for each of val and test, where the zip has no splits."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image with its label file, as members of a zip."""

    name: str
    split: "common_pb2.Split"
    image: str
    label: str


def upload_zip(orchestrator: Orchestrator, header: dataset_pb2.DatasetHeader, file: IO[bytes]) -> dataset_pb2.Dataset:
    """Make a dataset of a zip file.

    Raises:
        InvalidArgument: The zip is broken, or has another layout.
        grpc.RpcError: The orchestrator refused it.
    """
    with open_zip(file) as archive:
        pairs = find_pairs(archive.namelist())
        failure: list[InvalidArgument] = []

        def messages() -> Iterator[dataset_pb2.CreateDatasetRequest]:
            make = dataset_pb2.CreateDatasetRequest
            yield make(header=header)
            try:
                for pair in pairs:
                    yield from _file(archive, pair, dataset_pb2.FILE_ROLE_IMAGE, pair.image)
                    yield from _file(archive, pair, dataset_pb2.FILE_ROLE_LABEL, pair.label)
            except InvalidArgument as error:
                failure.append(error)
                yield make()  # without its end the orchestrator refuses the upload
                return
            yield make(end=dataset_pb2.UploadEnd(items=len(pairs)))

        try:
            answer: dataset_pb2.CreateDatasetResponse = orchestrator.datasets.CreateDataset(
                messages(), timeout=WORK_SECONDS
            )
        except Exception:
            if failure:
                raise failure[0] from None
            raise
        return answer.dataset


def find_pairs(names: list[str]) -> list[Pair]:
    """Pair the images and label files of a zip by their names, in order of split and name.

    A single folder that holds all others is left out. Without splits, a fifth of the items each is for val and test,
    drawn with a fixed seed.

    Raises:
        InvalidArgument: No pair, or two files for one name.
    """
    paths = [PurePosixPath(name) for name in names if not name.endswith("/") and not name.startswith("__MACOSX")]
    paths = [path for path in paths if len(path.parts) > 1 and not path.name.startswith(".")]
    above = {path.parts[0] for path in paths}
    nested = len(above) == 1 and above.isdisjoint({*SPLITS, "images", "masks"})
    found: dict[str, dict[str, dict[str, str]]] = {}
    for path, parts in ((path, path.parts[1:] if nested else path.parts) for path in paths):
        split, folder = (parts[0], parts[1]) if len(parts) == 3 and parts[0] in SPLITS else ("", parts[0])
        if len(parts) != 2 + bool(split) or folder not in ("images", "masks"):
            continue
        if path.suffix.lower() not in (IMAGE_SUFFIXES if folder == "images" else LABEL_SUFFIXES):
            continue
        files = found.setdefault(split, {"images": {}, "masks": {}})[folder]
        if path.stem in files:
            raise InvalidArgument(f"{files[path.stem]} and {path} have the same name; keep one of them.")
        files[path.stem] = str(path)
    pairs = [
        (split, stem, files["images"][stem], files["masks"][stem])
        for split, files in found.items()
        for stem in sorted(files["images"].keys() & files["masks"].keys())
    ]
    if not pairs:
        raise InvalidArgument(
            "The zip has no image in images/ with a label file of the same name in masks/, at its top or in train/, "
            f"val/ and test/; images are {', '.join(IMAGE_SUFFIXES)}, label files {', '.join(LABEL_SUFFIXES)}."
        )
    drawn = iter(_draw(sum(not split for split, *_ in pairs)))
    stems = [stem for _, stem, *_ in pairs]
    made = [
        Pair(
            name=_item_name(stem if stems.count(stem) == 1 else f"{split}-{stem}"),
            split=SPLITS[split or next(drawn)],
            image=image,
            label=label,
        )
        for split, stem, image, label in pairs
    ]
    return sorted(made, key=lambda pair: (pair.split, pair.name))


def _draw(count: int) -> list[str]:
    few = max(round(count * SHARE), int(count >= 3))
    splits = ["val"] * few + ["test"] * few
    splits = (["train"] * max(count - len(splits), 1) + splits)[:count]
    random.Random(0).shuffle(splits)
    return splits


def _item_name(stem: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._ -]", "_", stem)[:200]
    return name if re.match(r"[A-Za-z0-9_]", name) else f"_{name[1:]}"


def _file(
    archive: zipfile.ZipFile, pair: Pair, role: "dataset_pb2.FileRole", member: str
) -> Iterator[dataset_pb2.CreateDatasetRequest]:
    make = dataset_pb2.CreateDatasetRequest
    yield make(file=dataset_pb2.FileHeader(item=pair.name, split=pair.split, role=role))
    for chunk in read_member(archive, member):
        yield make(chunk=chunk)
