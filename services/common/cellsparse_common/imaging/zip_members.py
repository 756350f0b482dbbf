"""Files in a small zip, as ImageJ's ROI manager and QuPath write them, within limits."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from cellsparse_common.errors import CellsparseError, InvalidArgument, ResourceExhausted

SIGNATURES = (b"PK\x03\x04", b"PK\x05\x06")
MAX_MEMBERS = 100_000
"""Most files in a zip."""
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)
"""What `zipfile` and its codecs raise on broken files."""
_ENTRY = b"PK\x01\x02"
_READ_BYTES = 2**20


def count_members(file: IO[bytes]) -> int:
    """Return about how many files a zip lists, at least as many as it does, before an object is made of each.

    Args:
        file: The zip; left at its beginning.
    """
    count, end = 0, b""
    file.seek(0)
    while part := file.read(_READ_BYTES):
        count += (end + part).count(_ENTRY)
        end = part[-len(_ENTRY) + 1 :]
    file.seek(0)
    return count


def has_too_many(data: bytes) -> bool:
    """Tell whether a zip lists more than `MAX_MEMBERS` files, before an object is made of each."""
    return data.count(_ENTRY) > MAX_MEMBERS


def read_members(data: bytes, suffixes: tuple[str, ...], max_bytes: int, field: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files in a zip that have one of some suffixes, but for those that macOS adds.

    Args:
        data: The zip.
        suffixes: In lower case.
        max_bytes: Most unpacked bytes of all of them.
        field: Name of the request's field, for messages.

    Raises:
        InvalidArgument: It is truncated or broken.
        ResourceExhausted: It holds too many files or bytes.
    """
    if has_too_many(data):
        raise ResourceExhausted(f"The {field} is a zip of more than {MAX_MEMBERS:,} files.", field)
    left = max_bytes
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for info in archive.infolist():
                name = info.filename.rsplit("/", 1)[-1]
                if not name.lower().endswith(suffixes) or name.startswith("._"):
                    continue
                with archive.open(info) as member:
                    content = member.read(left + 1)
                left -= len(content)
                if left < 0:
                    raise ResourceExhausted(f"The {field} unpacks to more than {max_bytes:,} bytes.", field)
                yield name, content
    except CellsparseError:
        raise
    except Exception as error:  # zipfile and its codecs raise many kinds on broken files
        raise InvalidArgument(f"The {field} is a truncated or broken zip file: {error}.", field) from error
