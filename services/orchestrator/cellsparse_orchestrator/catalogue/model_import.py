"""Import models: an uploaded file becomes a visible model, or nothing is left of it.

The uploaded file's object in the store also marks an unfinished import: it is written first and deleted last. The next
import finds the marks of imports that were killed, and removes what they left behind.
"""

import contextlib
import logging
import threading
from collections.abc import Callable

import grpc

from cellsparse_common.errors import CellsparseError
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.catalogue.model_uploads import ModelUpload
from cellsparse_orchestrator.catalogue.models import Models
from cellsparse_orchestrator.clock import is_id, new_id
from cellsparse_proto.v1 import orchestrator_pb2, trainer_pb2

_LOG = logging.getLogger(__name__)

_ANSWERS = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION)
"""Errors after which a trainer has certainly finished with the file; after others it may still be writing."""

Publish = Callable[[trainer_pb2.PublishModelRequest], None]
"""Asks a trainer to publish; raises CellsparseError."""


class ModelImports:
    """Makes models from uploaded files.

    Args:
        store: Where models are.
        models: The table of models.
    """

    def __init__(self, store: ObjectStore, models: Models) -> None:
        self._store = store
        self._models = models
        self._lock = threading.Lock()
        self._active: set[str] = set()

    def add(self, upload: ModelUpload, publish: Publish) -> orchestrator_pb2.Model:
        """Publish an upload and register the model.

        Raises:
            CellsparseError: The file is not a model, or a service failed; nothing of it is visible.
        """
        model_id = new_id("model")
        with self._lock:
            self._active.add(model_id)
        try:
            self._sweep()
            self._store.put(keys.upload(model_id), upload.file)
            request = trainer_pb2.PublishModelRequest(
                model_id=model_id, sha256=upload.sha256, settings=upload.header.settings
            )
            publish(request)
            size = sum(map(self._store.size, list(self._store.list(keys.model_prefix(model_id)))))
            made = self._models.add_imported(model_id, upload.header.name, upload.header.settings.backend, size)
            with contextlib.suppress(CellsparseError):  # the next import will delete it
                self._store.delete(keys.upload(model_id))
            return made
        except BaseException as error:
            # A trainer that did not answer may still be writing. The mark stays, so that the next import looks again.
            self._remove(model_id, for_good=isinstance(error, CellsparseError) and error.status in _ANSWERS)
            raise
        finally:
            with self._lock:
                self._active.discard(model_id)

    def _sweep(self) -> None:
        """Remove what killed imports left behind; a key that is not one of ours stays, and all that it may name."""
        try:
            for key in list(self._store.list(keys.UPLOADS)):
                model_id = key.removeprefix(keys.UPLOADS)
                with self._lock:
                    active = model_id in self._active
                if is_id("model", model_id) and not active:
                    self._remove(model_id, for_good=True)
        except CellsparseError as error:
            _LOG.warning("left-overs of earlier imports stay for now: %s", error.message)

    def _remove(self, model_id: str, *, for_good: bool) -> None:
        """Delete an import's objects, its mark last; keep those of a registered model."""
        try:
            if not self._models.is_known(model_id):
                for key in list(self._store.list(keys.run_prefix(model_id))):
                    self._store.delete(key)
            if for_good:
                self._store.delete(keys.upload(model_id))
            else:
                self._store.put(keys.upload(model_id), b"")
        except CellsparseError as error:
            _LOG.warning("what import %s left behind stays for now: %s", model_id, error.message)
