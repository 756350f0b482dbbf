"""Receive a prompter's upload: a stream of messages becomes two ONNX files in a spool folder."""

import hashlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_common.files import disk_errors
from cellsparse_common.onnx_file import check_onnx
from cellsparse_proto.v1 import prompter_pb2

PARTS = ("encoder", "decoder")
BUILT_IN = frozenset({"auto", "model", "classical", "onnx-sam"})
"""Names that the REST API gives to other prompters."""


@dataclass(frozen=True, kw_only=True)
class PrompterUpload:
    """A complete upload."""

    header: prompter_pb2.AddPrompterHeader
    """What the user states."""
    encoder: Path
    decoder: Path
    encoder_size: int
    decoder_size: int


def receive_prompter(
    requests: Iterable[prompter_pb2.AddPrompterRequest], folder: Path, max_bytes: int
) -> PrompterUpload:
    """Receive a whole stream.

    Args:
        requests: The messages.
        folder: Where to write the files; an empty folder.
        max_bytes: Largest size of each file.

    Raises:
        InvalidArgument: The messages come in a wrong order, a file is incomplete or has another hash than announced, or
            is no ONNX file; or the name is taken by a built-in prompter.
        ResourceExhausted: A file is too large.
        StorageError: The spool cannot be written.
    """
    header: prompter_pb2.AddPrompterHeader | None = None
    paths = {part: folder / f"{part}.onnx" for part in PARTS}
    digests, sizes, ended = {part: hashlib.sha256() for part in PARTS}, dict.fromkeys(PARTS, 0), False
    with disk_errors(f"write {folder}"), ExitStack() as files:
        targets = {part: files.enter_context(path.open("xb")) for part, path in paths.items()}
        for request in requests:
            part = request.WhichOneof("part")
            if header is None and part != "header":
                raise InvalidArgument("The first message of an upload must be its header.", "header")
            if ended:
                raise InvalidArgument(f"The upload goes on with a {part} after its end; end comes last.", "end")
            if part == "header":
                if header is not None:
                    raise InvalidArgument("The upload has a second header; send one, as the first message.", "header")
                header = _checked(request.header)
            elif part == "end":
                for name, size in (("encoder", request.end.encoder_size), ("decoder", request.end.decoder_size)):
                    if size != sizes[name]:
                        raise InvalidArgument(
                            f"The end names {size} bytes of the {name}, but {sizes[name]} came.", f"end.{name}_size"
                        )
                ended = True
            else:
                if part == "encoder" and sizes["decoder"]:
                    raise InvalidArgument("A part of the encoder comes after the decoder; send it before.", "encoder")
                chunk = request.encoder if part == "encoder" else request.decoder
                sizes[part] += len(chunk)
                if sizes[part] > max_bytes:
                    raise ResourceExhausted(
                        f"The {part} is larger than {max_bytes / 2**20:g} MiB, the most allowed.", part
                    )
                digests[part].update(chunk)
                targets[part].write(chunk)
    if header is None or not ended:
        raise InvalidArgument("The upload stopped without its end message; nothing of it is kept.", "end")
    for name, stated in (("encoder", header.encoder_sha256), ("decoder", header.decoder_sha256)):
        found = digests[name].hexdigest()
        if found != stated:
            raise InvalidArgument(
                f"The {name} has the SHA-256 {found}, but {stated} was announced: it is another file, or broken.",
                f"header.{name}_sha256",
            )
        check_onnx(paths[name], f"The {name}")
    return PrompterUpload(
        header=header,
        encoder=paths["encoder"],
        decoder=paths["decoder"],
        encoder_size=sizes["encoder"],
        decoder_size=sizes["decoder"],
    )


def _checked(header: prompter_pb2.AddPrompterHeader) -> prompter_pb2.AddPrompterHeader:
    if header.name in BUILT_IN:
        raise InvalidArgument(
            f"The name {header.name!r} is taken by a built-in prompter; choose another than "
            f"{', '.join(sorted(BUILT_IN))}.",
            "header.name",
        )
    return header
