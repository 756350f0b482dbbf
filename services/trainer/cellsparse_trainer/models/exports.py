"""Models as files for other tools: built by the inference process in a folder that goes away, then sent in chunks."""

import json
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.files import sha256_of
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.contract import CONFIG_FILE
from cellsparse_trainer.models.inference import InferenceContext, find_model

CHUNK = 2**20
"""Largest part of a file in one message, bytes."""
RECORD_FILE = "cellsparse.json"
"""What an export of the stock tool's own files has besides, so that it can be imported again as it was."""
_SUFFIXES = {"native": ".zip", "saved_model": ".zip", "torchscript": ".pt", "onnx": ".onnx", "bioimageio": ".zip"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def format_name(number: "trainer_pb2.ExportFormat") -> str:
    """Return the short name of a format: EXPORT_FORMAT_NATIVE is "native"."""
    return trainer_pb2.ExportFormat.Name(number).removeprefix("EXPORT_FORMAT_").lower()


def build_export(context: InferenceContext, model_id: str, name: str, folder: Path) -> Path:
    """Write a model as a file into an empty folder and return its path. Runs in the inference process.

    Args:
        context: The backend, where models are kept, and the device.
        model_id: The model.
        name: Short name of the format.
        folder: An empty folder; the caller removes it.

    Raises:
        NotFound: There is no such model.
        InvalidArgument: The backend has no such format.
    """
    files = folder / "files"
    files.mkdir()
    with find_model(context, model_id) as (spec, source, card):
        backend = spec.framework()
        if name not in backend.EXPORTS:
            allowed = ", ".join(backend.EXPORTS)
            raise InvalidArgument(f"format is {name}; allowed for a {spec.name} model: {allowed}.", "format")
        with _temporary_files_in(folder):
            backend.EXPORTS[name](source, files, card)
        if name == "native":
            (files / RECORD_FILE).write_text(_record(source, card))
    target = folder / (model_id + _SUFFIXES[name])
    if target.suffix == ".zip":
        write_zip(files, target)
    else:
        (only,) = files.iterdir()
        only.replace(target)
    return target


def _record(source: Path, card: Mapping[str, Any]) -> str:
    found = {
        "backend": card["backend"],
        "preprocessing": card["preprocessing"],
        "axes": card.get("axes", "YX"),
        "spacing": card.get("spacing", []),
        "channel_names": card.get("channel_names", []),
        "config": json.loads((source / CONFIG_FILE).read_text()) if (source / CONFIG_FILE).is_file() else {},
    }
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Let what frameworks leave behind when they are killed go with the folder."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def write_zip(folder: Path, target: Path) -> None:
    """Write all files below a folder into a zip: sorted, without times and owners, so that equal files give equal zips.

    Args:
        folder: Its own name does not appear in the zip.
        target: The zip, outside the folder.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whatever this machine is
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = (folder / name).stat().st_size  # decides whether the entry needs 64-bit sizes
            with (folder / name).open("rb") as file, archive.open(entry, "w") as stream:
                shutil.copyfileobj(file, stream, CHUNK)


def read_messages(path: Path) -> Iterator[trainer_pb2.ExportResponse]:
    """Yield the header of a file, then its content in chunks."""
    header = trainer_pb2.ExportHeader(file_name=path.name, size=path.stat().st_size, sha256=sha256_of(path))
    yield trainer_pb2.ExportResponse(header=header)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield trainer_pb2.ExportResponse(chunk=chunk)
