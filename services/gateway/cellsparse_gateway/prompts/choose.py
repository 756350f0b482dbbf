"""Which prompters answer."""

from collections.abc import Callable, Sequence

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.prompts.classical import Classical
from cellsparse_gateway.prompts.model import Model
from cellsparse_gateway.prompts.onnx_sam import OnnxSam
from cellsparse_gateway.prompts.stored import StoredSam
from cellsparse_gateway.prompts.types import AUTO, Prompter


class Prompters:
    """All prompters of this gateway: the built-in ones, that of its settings, and those of the store.

    Args:
        own: Those of the settings.
        stored: Gives those of the store, newest first.
    """

    def __init__(self, own: Sequence[Prompter] = (), stored: Callable[[], Sequence[StoredSam]] = list) -> None:
        self._own = list(own)
        self._stored = stored

    def all(self) -> list[Prompter]:
        """Return all, the one that `AUTO` asks first leading.

        Raises:
            grpc.RpcError: The orchestrator does not answer.
        """
        return [Model(()), *self.weighted(), Classical()]

    def weighted(self) -> list[Prompter]:
        """Return those with weights."""
        return [*self._own, *self._stored()]

    def asked(self, method: str) -> list[Prompter]:
        """Return the prompters with weights that a method asks, in order.

        `AUTO` asks that of the settings, else the newest of the store that works. A click does not wait until that is
        loaded: others answer meanwhile. "onnx-sam" asks the same, and waits.

        Raises:
            InvalidArgument: There is no such prompter.
            grpc.RpcError: The orchestrator does not answer.
        """
        if method in (Model.name, Classical.name):
            return []
        if method == AUTO:
            if self._own:
                return self._own
            newest = next((each for each in self._stored() if not each.refused), None)
            return [newest] if newest is not None and newest.ready() else []
        weighted = self.weighted()
        found = weighted if method == OnnxSam.name else [each for each in weighted if each.name == method]
        if not found:
            names = ", ".join((AUTO, *(each.name for each in self.all())))
            raise InvalidArgument(f"There is no prompter {method!r} here; there are {names}.")
        return found[:1]
