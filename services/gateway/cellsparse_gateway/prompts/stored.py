"""The prompters of the orchestrator's store: listed at once, loaded and tested when they are first needed."""

import contextvars
import logging
import threading
import time
from collections import OrderedDict

from cellsparse_common.errors import CellsparseError, InvalidArgument, NotFound
from cellsparse_gateway.calls import Orchestrator
from cellsparse_gateway.prompts.onnx_sam import OnnxSam
from cellsparse_gateway.prompts.types import Prompt, Proposal
from cellsparse_gateway.prompts.weight_cache import WeightCache
from cellsparse_proto.v1 import prompter_pb2

_LOG = logging.getLogger(__name__)

LIST_SECONDS = 2.0
"""How long a list of prompters is believed."""
LOADED = 2
"""Most models in memory at a time."""


class StoredSam:
    """A Segment Anything model whose weights are in the store. Safe to use from many threads.

    Args:
        prompter: What the orchestrator says of it.
        models: Where models are loaded.
    """

    def __init__(self, prompter: "prompter_pb2.Prompter", models: "_Models") -> None:
        self._prompter = prompter
        self._models = models
        self._loading = threading.Lock()
        self._beginning = threading.Lock()
        self._begun = False
        self._refusal: InvalidArgument | None = None

    @property
    def name(self) -> str:
        """As the user chose it."""
        return self._prompter.name

    @property
    def title(self) -> str:
        """For people."""
        return f"Segment Anything {self.name}"

    @property
    def licence(self) -> str:
        """As the user stated it."""
        return self._prompter.licence

    @property
    def refused(self) -> bool:
        """Whether the weights have turned out not to work."""
        return self._refusal is not None

    def propose(self, prompt: Prompt) -> list[Proposal]:
        """Return proposals as `OnnxSam` does; the first call loads and tests the model.

        Raises:
            InvalidArgument: The files are no pair that works here.
            CellsparseError: The files cannot be fetched.
        """
        return self._load().propose(prompt)

    def check(self) -> None:
        """Load and test the model, unless it is in memory.

        Raises:
            InvalidArgument: The files are no pair that works here.
            CellsparseError: The files cannot be fetched.
        """
        self._load()

    def ready(self) -> bool:
        """Whether a proposal would come at once; if not, loading begins in the background."""
        if self._models.get(self._prompter) is not None:
            return True
        with self._beginning:
            begin, self._begun = not self._begun and not self.refused, True
        if begin:
            load = contextvars.copy_context().run  # for whoever asked first
            threading.Thread(target=load, args=(self._try,), name=f"prompter {self.name}", daemon=True).start()
        return False

    def _try(self) -> None:
        try:
            self._load()
        except CellsparseError as error:
            _LOG.warning("prompter %s: %s", self.name, error.message)
        finally:
            self._begun = False

    def _load(self) -> OnnxSam:
        with self._loading:
            if self._refusal is not None:
                raise self._refusal
            try:
                return self._models.load(self._prompter)
            except InvalidArgument as error:
                self._refusal = InvalidArgument(f"The prompter {self.name!r} does not work here. {error.message}")
                raise self._refusal from None


class StoredPrompters:
    """All prompters of the store. Safe to use from many threads.

    Args:
        orchestrator: Lists them.
        cache: Brings their files.
    """

    def __init__(self, orchestrator: Orchestrator, cache: WeightCache) -> None:
        self._orchestrator = orchestrator
        self._models = _Models(cache)
        self._lock = threading.Lock()
        self._known: dict[bytes, StoredSam] = {}
        self._until = 0.0

    def all(self) -> list[StoredSam]:
        """Return them, newest first, as they were not more than `LIST_SECONDS` ago.

        Raises:
            grpc.RpcError: The orchestrator does not answer.
        """
        with self._lock:
            if time.monotonic() < self._until:
                return list(self._known.values())
        calls = self._orchestrator
        listed = list(calls.pages(calls.prompters.ListPrompters, prompter_pb2.ListPromptersRequest, "prompters"))
        with self._lock:
            found = {_key(each): each for each in listed}
            self._known = {key: self._known.get(key) or StoredSam(each, self._models) for key, each in found.items()}
            self._until = time.monotonic() + LIST_SECONDS
            self._models.keep_only(set(found))
            return list(self._known.values())

    def check(self, name: str) -> None:
        """Load and test a prompter.

        Raises:
            NotFound: There is none of this name.
            InvalidArgument: Its files are no pair that works here.
            CellsparseError: The files cannot be fetched.
            grpc.RpcError: The orchestrator does not answer.
        """
        found = next((each for each in self.all() if each.name == name), None)
        if found is None:
            raise NotFound(f"There is no prompter {name!r} among those that users added.")
        found.check()

    def forget_list(self) -> None:
        """Ask the orchestrator again at the next call."""
        with self._lock:
            self._until = 0.0


class _Models:
    """The models in memory, those used last."""

    def __init__(self, cache: WeightCache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._loaded: OrderedDict[bytes, OnnxSam] = OrderedDict()

    def get(self, prompter: "prompter_pb2.Prompter") -> OnnxSam | None:
        with self._lock:
            found = self._loaded.get(_key(prompter))
            if found is not None:
                self._loaded.move_to_end(_key(prompter))
            return found

    def load(self, prompter: "prompter_pb2.Prompter") -> OnnxSam:
        found = self.get(prompter)
        if found is not None:
            return found
        encoder = self._cache.read(prompter.name, prompter_pb2.PROMPTER_PART_ENCODER, prompter.encoder)
        decoder = self._cache.read(prompter.name, prompter_pb2.PROMPTER_PART_DECODER, prompter.decoder)
        made = OnnxSam(encoder, decoder, prompter.licence)
        _LOG.info("prompter %s is loaded, licence %s", prompter.name, prompter.licence)
        with self._lock:
            self._loaded[_key(prompter)] = made
            while len(self._loaded) > LOADED:
                self._loaded.popitem(last=False)
        return made

    def keep_only(self, keys: set[bytes]) -> None:
        with self._lock:
            for key in [key for key in self._loaded if key not in keys]:
                del self._loaded[key]


def _key(prompter: "prompter_pb2.Prompter") -> bytes:
    return prompter.SerializeToString(deterministic=True)
