"""Weights of prompters on this machine's disk, fetched from the orchestrator when they are first needed."""

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path

import grpc

from cellsparse_common.errors import FailedPrecondition, Unavailable, from_rpc_error
from cellsparse_common.files import TEMPORARY, disk_errors, replacing
from cellsparse_gateway.calls import WORK_SECONDS, Orchestrator
from cellsparse_proto.v1 import prompter_pb2

ABANDONED_SECONDS = 24 * 3600.0
"""Age of an unfinished file that nobody writes any more."""


class WeightCache:
    """A folder of files named by their hashes, those used last. Safe to use from many threads and processes.

    Args:
        orchestrator: Has the files.
        folder: Where to keep them; made when it is needed.
        max_bytes: Most bytes to keep.
    """

    def __init__(self, orchestrator: Orchestrator, folder: Path, max_bytes: int) -> None:
        self._prompters = orchestrator.prompters
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()

    def read(self, name: str, part: "prompter_pb2.PrompterPart", file: "prompter_pb2.PrompterFile") -> bytes:
        """Return a file of a prompter, whose hash has been checked.

        Args:
            name: The prompter's.
            part: Which of its files.
            file: What it should be.

        Raises:
            CellsparseError: The call failed, the file came broken, or there is no room for it.
        """
        path = self._folder / f"{file.sha256}.onnx"
        with self._lock:
            kept = _read(path, file.sha256)
            if kept is not None:
                return kept
            with disk_errors(f"keep weights in {self._folder}"):
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._make_room(file.size)
            try:
                self._fetch(name, part, path)
            except grpc.RpcError as error:
                raise from_rpc_error(error) from None
            fetched = _read(path, file.sha256)
        if fetched is None:
            path.unlink(missing_ok=True)
            raise Unavailable(f"The weights of the prompter {name!r} came broken; try again.")
        return fetched

    def _fetch(self, name: str, part: "prompter_pb2.PrompterPart", path: Path) -> None:
        request = prompter_pb2.GetPrompterFileRequest(name=name, part=part)
        call = self._prompters.GetPrompterFile(request, timeout=WORK_SECONDS)
        try:
            with replacing(path) as target:
                for answer in call:
                    target.write(answer.chunk)
        finally:
            call.cancel()

    def _make_room(self, size: int) -> None:
        """Remove the files that were used longest ago."""
        if size > self._max_bytes:
            raise FailedPrecondition(
                f"The weights have {size / 2**20:.0f} MiB, but the gateway keeps at most {self._max_bytes / 2**20:g}: "
                "CELLSPARSE_GATEWAY_WEIGHTS_MIB raises that."
            )
        found = []
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another gateway was quicker
                state = path.stat()
                if path.name.startswith(TEMPORARY) and state.st_mtime < time.time() - ABANDONED_SECONDS:
                    path.unlink()
                elif path.suffix == ".onnx":
                    found.append((state.st_mtime, state.st_size, path))
        total = sum(each[1] for each in found)
        for _, length, path in sorted(found):
            if total + size <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= length


def _read(path: Path, sha256: str) -> bytes | None:
    with disk_errors(f"read {path}"):
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
    return data if hashlib.sha256(data).hexdigest() == sha256 else None
