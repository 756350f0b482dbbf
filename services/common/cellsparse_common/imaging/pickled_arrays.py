"""Reading the pickle in a `.npy` file without running anything of it.

`numpy.load(allow_pickle=True)` calls whatever a file names, so a file could run any command. Here the few names that
arrays are pickled with stand for plain records of ours, and every other name is refused. Nothing of NumPy is called
with values of the file before they are checked.
"""

import io
import math
import pickle
import re
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = b"\x93NUMPY"
"""First bytes of a `.npy` file."""

_PLAIN = re.compile(r"[?biuf]\d{0,2}")


class RefusedError(ValueError):
    """The file holds something that is not read; the text completes a sentence about the file."""


class PickledType:
    """Stands for a `numpy.dtype`."""

    __slots__ = ("code", "order")

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = str(code)
        self.order = "="

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise RefusedError("has an array of a broken type")
        self.order = state[1]


class PickledArray:
    """Stands for a `numpy.ndarray`: its values are not looked at before they are asked for."""

    __slots__ = ("fortran", "raw", "shape", "type")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.type = PickledType()
        self.fortran = False
        self.raw: Any = b""

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise RefusedError("has a broken array")
        _, shape, kind, fortran, raw = state
        if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
            raise RefusedError("has an array of a broken shape")
        if not isinstance(kind, PickledType):
            raise RefusedError("has an array of a broken type")
        self.shape, self.type, self.fortran, self.raw = shape, kind, bool(fortran), raw

    def objects(self) -> list[Any]:
        """Return the entries of an array of objects.

        Raises:
            RefusedError: It is none.
        """
        if not self.type.code.startswith("O") or not isinstance(self.raw, list):
            raise RefusedError("is no array of objects")
        return self.raw

    def numbers(self, name: str) -> npt.NDArray[np.generic]:
        """Return an array of numbers.

        Raises:
            RefusedError: It holds something else, or fewer bytes than its shape needs.
        """
        if not _PLAIN.fullmatch(self.type.code):
            raise RefusedError(f"has {name} of type {self.type.code[:20]!r}, which are no numbers")
        raw = self.raw.encode("latin-1") if isinstance(self.raw, str) else self.raw  # a str where Python 2 wrote it
        if not isinstance(raw, bytes | bytearray):
            raise RefusedError(f"has {name} without values")
        dtype = np.dtype(("" if self.type.order == "|" else self.type.order) + self.type.code)
        if len(raw) != math.prod(self.shape) * dtype.itemsize:
            raise RefusedError(f"has {name} of shape {self.shape} in {len(raw):,} bytes, which do not fit together")
        return np.frombuffer(raw, dtype).reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: object) -> PickledArray:
    return PickledArray()


def _frombuffer(raw: object, kind: object, shape: object, order: object = "C") -> PickledArray:
    array = PickledArray()
    array.__setstate__((1, shape, kind, order == "F", raw))
    return array


def _scalar(*_: object) -> None:
    """Stand for a single NumPy number; none of them is needed."""


def _encode(text: object, *_: object) -> bytes:
    if not isinstance(text, str):
        raise RefusedError("has broken bytes")
    return text.encode("latin-1")


def _path(*parts: object) -> str:
    return "/".join(str(part) for part in parts)


class _NoMethods:
    """Stands for the class `numpy.ndarray` as an argument; it is never called."""

    __slots__ = ()

    def __init__(self, *_: object) -> None:
        raise RefusedError("builds an array in an unusual way")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NoMethods,
    ("numpy", "dtype"): PickledType,
    ("_codecs", "encode"): _encode,
    **{
        (f"numpy.{core}.{module}", name): made
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", _reconstruct),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _frombuffer),
        )
    },
    **{("pathlib", name): _path for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            shown = f"{module}.{name}"[:80]
            raise RefusedError(
                f"asks for {shown!r}; allowed: arrays, lists, dictionaries, text and numbers only"
            ) from None


def load(data: bytes) -> PickledArray | npt.NDArray[np.generic]:
    """Return the content of a `.npy` file: an array of numbers, or an array of objects.

    To be called where memory and time are limited: a hostile pickle can ask for much of both.

    Raises:
        RefusedError: It is broken, or holds more than arrays, lists, dictionaries, text and numbers.
    """
    stream = io.BytesIO(data)
    try:
        form: Any = np.lib.format  # its functions have no types
        version = form.read_magic(stream)
        read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except Exception as error:
        raise RefusedError("has a truncated or broken .npy header") from error
    if dtype.hasobject:
        try:
            found = _Unpickler(stream, encoding="latin-1").load()
        except (RefusedError, MemoryError):
            raise
        except Exception as error:  # a broken pickle can raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0][:100].rstrip(".")
            raise RefusedError(f"is a truncated or broken pickle ({reason})") from error
        if not isinstance(found, PickledArray):
            raise RefusedError("holds no array")
        return found
    array = PickledArray()
    kind = PickledType(dtype.str[1:] if dtype.kind != "b" else "?")
    kind.order = dtype.str[0]
    array.__setstate__((1, shape, kind, fortran, data[stream.tell() :]))
    return array.numbers("values")
