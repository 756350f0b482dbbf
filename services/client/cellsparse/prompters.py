"""Prompters: Segment Anything models that a user brings."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cellsparse.connection import Connection
from cellsparse.errors import InvalidArgument
from cellsparse.sources import read_parts, refuse_endless
from cellsparse.targets import file_errors
from cellsparse_common.config.shown import shown_url
from cellsparse_common.onnx_file import check_onnx
from cellsparse_proto.v1 import prompter_pb2

ADD_SECONDS = 7200.0


def add(
    connection: Connection,
    name: str,
    encoder: str | Path,
    decoder: str | Path,
    *,
    licence: str,
    sha256: tuple[str, str] | None = None,
) -> prompter_pb2.Prompter:
    """Upload a prompter (see `cellsparse.Client.add_prompter`).

    Raises:
        InvalidArgument: A file is not there or is no ONNX file, or its hash is missing or another.
        CellsparseError: The call failed.
    """
    from cellsparse.downloads import is_remote, local_file  # slow to import, for a rare command

    given = {"encoder": str(encoder), "decoder": str(decoder)}
    if sha256 is None and any(is_remote(source) for source in given.values()):
        raise InvalidArgument("Weights from a URL need their SHA-256: give those of encoder and decoder.", "sha256")
    stated = dict(zip(given, sha256, strict=True)) if sha256 else {}
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for part, source in given.items():
            path = local_file(source, Path(folder) / f"{part}.onnx")
            shown = shown_url(source)
            with file_errors(f"{shown} cannot be read"):
                refuse_endless(path)
            check_onnx(path, shown)
            files[part] = path, _checked(path, shown, stated.get(part, ""))
        header = prompter_pb2.AddPrompterHeader(
            name=name, licence=licence, encoder_sha256=files["encoder"][1], decoder_sha256=files["decoder"][1]
        )
        answer: prompter_pb2.AddPrompterResponse = connection.upload(
            "AddPrompter", _messages(header, files["encoder"][0], files["decoder"][0]), timeout=ADD_SECONDS
        )
    return answer.prompter


def listed(connection: Connection) -> Iterator[prompter_pb2.Prompter]:
    """Yield all prompters that users added, newest first."""
    return connection.pages("ListPrompters", prompter_pb2.ListPromptersRequest, "prompters")


def remove(connection: Connection, name: str) -> None:
    """Delete a prompter with its weights."""
    connection.call("DeletePrompter", prompter_pb2.DeletePrompterRequest(name=name))


def _checked(path: Path, source: str, stated: str) -> str:
    """Return a file's SHA-256."""
    digest = hashlib.sha256()
    for part in read_parts(path):
        digest.update(part)
    found = digest.hexdigest()
    if stated and found != stated.lower():
        raise InvalidArgument(
            f"{source} has the SHA-256 {found}, not {stated}: it is another file, or broken.", "sha256"
        )
    return found


def _messages(
    header: prompter_pb2.AddPrompterHeader, encoder: Path, decoder: Path
) -> Iterator[prompter_pb2.AddPrompterRequest]:
    make = prompter_pb2.AddPrompterRequest
    yield make(header=header)
    end = prompter_pb2.AddPrompterEnd()
    for chunk in read_parts(encoder):
        end.encoder_size += len(chunk)
        yield make(encoder=chunk)
    for chunk in read_parts(decoder):
        end.decoder_size += len(chunk)
        yield make(decoder=chunk)
    yield make(end=end)
