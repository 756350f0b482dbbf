"""Looks again and again whether a run's checkpoint pointers point at whole checkpoints."""

import hashlib
import json
import threading
from types import TracebackType

from support.limits import PATIENCE

from cellsparse_common.errors import NotFound
from cellsparse_common.storage import ObjectStore, keys


class PointerWatch:
    """`with PointerWatch(store, run_id) as watch:` looks until the end of the block.

    Attributes:
        looks: How often a pointer was followed to its files.
        faults: What was found missing or half.
    """

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.looks = 0
        self.faults: list[str] = []

    def __enter__(self) -> "PointerWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(PATIENCE)

    def _watch(self) -> None:
        whole: dict[str, bytes] = {}
        while not self._done.wait(0.01):
            for name in ("LATEST", "BEST"):
                before = self._get(keys.checkpoint_pointer(self._run_id, name))
                if before is None:
                    continue
                # What was whole may go missing, but objects are not written twice: no need to read it all again.
                fault = self._missing(before) if whole.get(name) == before else self._fault(before)
                whole[name] = before
                # A pointer that has moved on meanwhile may have let go of the files it had.
                if fault and self._get(keys.checkpoint_pointer(self._run_id, name)) == before:
                    self.faults.append(f"{name}: {fault}")
                self.looks += 1

    def _missing(self, text: bytes) -> str:
        pointer = json.loads(text)
        for file in pointer["files"]:
            if not self._store.exists(keys.checkpoint(self._run_id, pointer["step"], file)):
                return f"{file} of step {pointer['step']} is missing"
        return ""

    def _fault(self, text: bytes) -> str:
        pointer = json.loads(text)
        for file, digest in pointer["files"].items():
            data = self._get(keys.checkpoint(self._run_id, pointer["step"], file))
            if data is None:
                return f"{file} of step {pointer['step']} is missing"
            if hashlib.sha256(data).hexdigest() != digest:
                return f"{file} of step {pointer['step']} is not what the pointer says"
        return ""

    def _get(self, key: str) -> bytes | None:
        try:
            return self._store.get(key)
        except NotFound:
            return None
