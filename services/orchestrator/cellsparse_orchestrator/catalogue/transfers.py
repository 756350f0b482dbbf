"""Large images to segment: received in chunks, handed to a trainer through the store, and so the result."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cellsparse_common.errors import CellsparseError, InvalidArgument, ResourceExhausted
from cellsparse_common.files import disk_errors
from cellsparse_common.storage import ObjectStore, keys
from cellsparse_orchestrator.clock import new_id
from cellsparse_proto.v1 import orchestrator_pb2, trainer_pb2

_LOG = logging.getLogger(__name__)
_CHUNK_BYTES = 2**20
Predict = Callable[[trainer_pb2.PredictRequest], trainer_pb2.PredictResponse]


def receive_image(
    requests: Iterable[orchestrator_pb2.PredictFileRequest], file: Path, max_bytes: int
) -> trainer_pb2.PredictRequest:
    """Receive a whole stream; write its file, and return its header.

    Args:
        requests: The messages.
        file: Where to write the image; must not exist.
        max_bytes: Largest size of the file.

    Raises:
        InvalidArgument: The messages come in a wrong order, or the file is incomplete.
        ResourceExhausted: The file is too large.
        StorageError: The spool cannot be written.
    """
    header: trainer_pb2.PredictRequest | None = None
    size, ended = 0, False
    with disk_errors(f"write {file}"), file.open("xb") as target:
        for request in requests:
            part = request.WhichOneof("part")
            if (header is None) != (part == "header"):
                raise InvalidArgument("The header comes once, as the first message of the stream.", "header")
            if ended:
                raise InvalidArgument(f"The stream goes on with a {part} after its end; end comes last.", "end")
            if part == "header":
                header = request.header
                if header.image or header.transfer_id:
                    raise InvalidArgument("The header holds an image; send its file in chunks.", "header")
            elif part == "chunk":
                size += len(request.chunk)
                if size > max_bytes:
                    raise ResourceExhausted(
                        f"The image file is larger than {max_bytes / 2**20:g} MiB, the most allowed.", "chunk"
                    )
                target.write(request.chunk)
            else:
                if request.end.size != size:
                    raise InvalidArgument(f"The end names {request.end.size} bytes, but {size} came.", "end.size")
                ended = True
    if header is None or not ended:
        raise InvalidArgument("The image stopped without its end message; nothing of it is kept.", "end")
    return header


def send_result(answer: trainer_pb2.PredictResponse, file: Path) -> Iterator[orchestrator_pb2.PredictFileResponse]:
    """Yield the messages of a result.

    Raises:
        StorageError: The file cannot be read.
    """
    make = orchestrator_pb2.PredictFileResponse
    with disk_errors(f"read {file}"), file.open("rb") as source:
        yield make(header=orchestrator_pb2.PredictFileHeader(answer=answer, size=file.stat().st_size))
        while chunk := source.read(_CHUNK_BYTES):
            yield make(chunk=chunk)


class Transfers:
    """Hands images to trainers through the store.

    Args:
        store: Holds an image and its result during the call.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def predict(
        self, header: trainer_pb2.PredictRequest, image: Path, result: Path, call: Predict
    ) -> trainer_pb2.PredictResponse:
        """Have an image segmented, and write the result.

        Args:
            header: What to ask for.
            image: The image's file.
            result: Where to write the result.
            call: Asks a trainer.

        Raises:
            CellsparseError: The trainer or the store failed; nothing stays in the store.
        """
        with self._transfer() as transfer_id:
            self._store.put(keys.transfer(transfer_id, "image"), image)
            asked = trainer_pb2.PredictRequest()
            asked.CopyFrom(header)
            asked.transfer_id = transfer_id
            answer = call(asked)
            self._store.fetch(keys.transfer(transfer_id, "result"), result)
            return answer

    def predict_data(self, asked: trainer_pb2.PredictRequest, call: Predict) -> trainer_pb2.PredictResponse:
        """Have an image segmented that does not fit into a message, and return the label image in the answer.

        Args:
            asked: What to ask for, with the image.
            call: Asks a trainer.

        Raises:
            CellsparseError: The trainer or the store failed; nothing stays in the store.
        """
        with self._transfer() as transfer_id:
            self._store.put(keys.transfer(transfer_id, "image"), asked.image)
            sent = trainer_pb2.PredictRequest()
            sent.CopyFrom(asked)
            sent.ClearField("image")
            sent.transfer_id = transfer_id
            answer = call(sent)
            answer.label = self._store.get(keys.transfer(transfer_id, "result"))
            return answer

    @contextmanager
    def _transfer(self) -> Iterator[str]:
        """Give the id of a new transfer; its objects are deleted at the end.

        What a killed orchestrator left is for the collector: nobody here knows which other transfers are under way.
        """
        transfer_id = new_id("transfer")
        try:
            yield transfer_id
        finally:
            self._remove(transfer_id)

    def _remove(self, transfer_id: str) -> None:
        try:
            for key in list(self._store.list(keys.transfer_prefix(transfer_id))):
                self._store.delete(key)
        except CellsparseError as error:
            _LOG.warning("left-overs of a prediction stay for now: %s", error.message)
