"""The sparsifier's servicer: decodes requests, calls the pure functions, encodes answers."""

import threading
from collections.abc import Iterator

import grpc
import numpy as np
import numpy.typing as npt

from cellsparse_common.channels import find_channel
from cellsparse_common.config.settings import ServerSettings
from cellsparse_common.errors import Cancelled, InvalidArgument, ResourceExhausted, Unavailable
from cellsparse_common.imaging.images import Image, decode_image
from cellsparse_common.imaging.labels import decode_labels, encode_labels
from cellsparse_common.storage import ObjectStore
from cellsparse_proto.v1 import sparsifier_pb2, sparsifier_pb2_grpc
from cellsparse_sparsifier.dataset import sparsify_dataset
from cellsparse_sparsifier.items import Reader
from cellsparse_sparsifier.metrics import SparsifyMetrics
from cellsparse_sparsifier.requests import read_settings
from cellsparse_sparsifier.sparsify import Settings, Sparse, sparsify
from cellsparse_sparsifier.suggest.stream import answer


class SparsifierServicer(sparsifier_pb2_grpc.SparsifierServiceServicer):
    """Serves `SparsifierService`; keeps nothing between calls."""

    def __init__(self, settings: ServerSettings, store: ObjectStore, metrics: SparsifyMetrics) -> None:
        self._metrics = metrics
        self._settings = settings
        self._store = store
        self._ending = threading.Event()

    def drain(self) -> None:
        """End dataset jobs before their next item; clients may call again."""
        self._ending.set()

    def Sparsify(
        self, request: sparsifier_pb2.SparsifyRequest, context: grpc.ServicerContext
    ) -> sparsifier_pb2.SparsifyResponse:
        """Sparsify one image."""
        settings = read_settings(request.settings)
        for field in ("image", "label"):
            self._check_file(getattr(request, field), field)
        limit = self._settings.max_pixels
        image = decode_image(request.image, max_pixels=limit, stacks=True, axes=request.axes)
        shape = image.array.shape[: len(image.axes.rstrip("C"))]
        label = decode_labels(request.label, shape=shape, max_pixels=limit)
        if not (label > 0).any():
            raise InvalidArgument("The label holds no labelled cell: there is nothing to select from.", "label")
        try:
            sparse = sparsify(_shown(image, settings.channel), label, settings, spacing=image.spacing)
        except ValueError as error:
            raise InvalidArgument(f"The image cannot be sparsified: {error}.", "image") from error
        self._metrics.count(label.size)
        return sparsifier_pb2.SparsifyResponse(
            label=encode_labels(sparse.label, image.spacing),
            kept=sparse.kept.tolist(),
            candidates=sparse.candidates,
            warnings=_warnings(sparse, settings),
        )

    def SparsifyDataset(
        self, request: sparsifier_pb2.SparsifyDatasetRequest, context: grpc.ServicerContext
    ) -> Iterator[sparsifier_pb2.SparsifyDatasetResponse]:
        """Sparsify a dataset of the store into a new one."""

        def check() -> None:
            if not context.is_active():
                raise Cancelled("The caller went away before the dataset was finished; nothing of it is kept.")
            if self._ending.is_set():
                raise Unavailable("The sparsifier is being stopped; ask again in a moment.")

        reader = Reader(store=self._store, max_pixels=self._settings.max_pixels, check=check, count=self._metrics.count)
        yield from sparsify_dataset(reader, request)

    def SuggestCells(
        self, request_iterator: Iterator[sparsifier_pb2.SuggestCellsRequest], context: grpc.ServicerContext
    ) -> sparsifier_pb2.SuggestCellsResponse:
        """Choose what to mark next in the images of a stream."""

        def check() -> None:
            if self._ending.is_set():
                raise Unavailable("The sparsifier is being stopped; ask again in a moment.")

        try:
            return answer(
                request_iterator,
                max_pixels=self._settings.max_pixels,
                max_file_bytes=self._settings.max_file_mib * 2**20,
                check=check,
            )
        except grpc.RpcError as error:
            raise Cancelled("The caller went away before its images were complete.") from error

    def _check_file(self, data: bytes, field: str) -> None:
        if len(data) > self._settings.max_file_mib * 2**20:
            raise ResourceExhausted(
                f"The {field} file has {len(data):,} bytes; allowed: at most {self._settings.max_file_mib} MiB.", field
            )


def _shown(image: Image, channel: str) -> npt.NDArray[np.generic]:
    """Return the pixels whose intensity counts: those of a channel by number or name; without one those of all."""
    if not channel:
        return image.array
    several = image.axes.endswith("C")
    number = find_channel(channel, image.channels, image.array.shape[-1] if several else 1, "settings.channel")
    return image.array[..., number] if several else image.array


def _warnings(sparse: Sparse, settings: Settings) -> list[str]:
    if not sparse.candidates:
        return ["No cell was kept: the label image has no cell whose pixels are not all on one line (in one plane)."]
    asked = settings.count(sparse.candidates)
    if sparse.kept.size < asked:
        return [f"{sparse.kept.size} cells were kept of {asked} asked for; {sparse.candidates} could be kept."]
    return []
