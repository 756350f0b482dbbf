"""Models: import, predict, evaluate, export."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from cellsparse import exports, model_import, models
from cellsparse.calls.base import Calls
from cellsparse.errors import Internal
from cellsparse.items import Content
from cellsparse.models import Channels, Prediction
from cellsparse_proto.v1 import orchestrator_pb2, trainer_pb2

if TYPE_CHECKING:
    from cellsparse_common.imaging.types import Labels

FileFormat: TypeAlias = Literal["geojson", "roi", "ome-tiff", "ome-zarr", "ome-zarr-0.4", "coco", "seg"]
"""File formats of predictions, beside label images."""


class ModelCalls(Calls):
    """Models: import, predict, evaluate, export."""

    def models(self, *, backend: str = "") -> Iterator[orchestrator_pb2.Model]:
        """Yield models, newest first."""

        def request(page: Any) -> orchestrator_pb2.ListModelsRequest:
            return orchestrator_pb2.ListModelsRequest(page=page, backend=backend)

        return self.connection.pages("ListModels", request, "models")

    def model(self, model_id: str) -> orchestrator_pb2.Model:
        """Return one model."""
        request = orchestrator_pb2.GetModelRequest(model_id=model_id)
        answer: orchestrator_pb2.GetModelResponse = self.connection.call("GetModel", request)
        return answer.model

    def import_model(
        self,
        path: str | Path,
        backend: str,
        *,
        name: str = "",
        channel: int | None = None,
        lower_percentile: float | None = None,
        upper_percentile: float | None = None,
        diameter: float | None = None,
        channels: Sequence[int] | None = None,
    ) -> orchestrator_pb2.Model:
        """Import a model file of a stock tool. Nothing is stored unless the backend's trainer can open it.

        Args:
            path: A Cellpose 3 or Cellpose-SAM model file, a StarDist model folder or a zip of one, a state dict of
                ELEPHANT's U-Net, or a "native" file from `export`.
            backend: One of `training_settings.backends()`, such as "cellpose".
            name: Display name; empty: the name of the file.
            channel: Image channel to use, from 0; not given: the mean of all.
            lower_percentile: Percentile of the image that becomes 0; not given: as the stock tool does.
            upper_percentile: Percentile of the image that becomes 1; not given: as the stock tool does.
            diameter: Cellpose: mean diameter of your cells in pixels; not given: that of the file.
            channels: Image channels that the network gets, from 0, in its order; not given: as many of the first as it
                takes, and for a network of one channel the mean of all.

        Returns:
            The model. Its id works with `predict`, `evaluate`, `export`, and as `initial_model` of `train`.
        """
        values = {
            "channel": channel,
            "lower_percentile": lower_percentile,
            "upper_percentile": upper_percentile,
            "diameter": diameter,
            "channels": channels,
        }
        return model_import.import_model(self.connection, path, backend, name, values)

    @overload
    def predict(
        self,
        model: str,
        image: Content,
        *,
        channel: int | None = None,
        channels: Channels | None = None,
        min_pixels: int = 0,
        format: Literal["tiff"] = "tiff",
        axes: str = "",
    ) -> "Labels": ...

    @overload
    def predict(
        self,
        model: str,
        image: Content,
        *,
        channel: int | None = None,
        channels: Channels | None = None,
        min_pixels: int = 0,
        format: FileFormat,
        axes: str = "",
    ) -> bytes: ...

    def predict(
        self,
        model: str,
        image: Content,
        *,
        channel: int | None = None,
        channels: Channels | None = None,
        min_pixels: int = 0,
        format: str = "tiff",  # noqa: A002
        axes: str = "",
    ) -> "Labels | bytes":
        """Segment one image.

        Args:
            model: Model id, which is the id of its run.
            image: Path, file content, or array of axes YX, YXC, ZYX or ZYXC.
            channel: Channel of the image to use, from 0; not given: as the model was trained.
            channels: Channels of the image, numbers from 0 or names, as many as the model takes, in its order; not
                given: as the model was trained.
            min_pixels: Cells of fewer pixels are removed.
            format: What to return: "tiff", labels as an array; or a file's content: "geojson", outlines for QuPath;
                "roi", a zip of ROIs for ImageJ (of stacks, outlines of each plane); "ome-tiff"; "ome-zarr", a zip, and
                "ome-zarr-0.4"; "coco", of 2D images; "seg", Cellpose's _seg.npy.
            axes: Axes of the image, such as "ZCYX", if its file does not name them (see `cellsparse.items.Item.axes`).

        Returns:
            Labels of axes YX or ZYX, the size of the image: 0 background, n > 0 cell n; or the content of the file.
        """
        found = models.predict(
            self.connection,
            model,
            image,
            channel=channel,
            channels=channels,
            min_pixels=min_pixels,
            format=format,
            axes=axes,
        ).output
        if found is None:
            raise Internal("The orchestrator answered without a segmentation.")
        return found

    def predict_many(
        self,
        model: str,
        images: Iterable[Content],
        *,
        channel: int | None = None,
        channels: Channels | None = None,
        min_pixels: int = 0,
        format: str = "tiff",  # noqa: A002
        axes: str = "",
        parallel: int = 1,
    ) -> Iterator[Prediction]:
        """Segment images, one after the other or several at a time, while the iterator is consumed.

        An image that fails does not stop the others: its `Prediction` holds the error.

        Args:
            model: Model id.
            images: As for `predict`; an iterator may be of any length.
            channel: As for `predict`.
            channels: As for `predict`.
            min_pixels: As for `predict`.
            format: As for `predict`.
            axes: As for `predict`, of all images.
            parallel: Images that are with the server at the same time, 1 to 64. While one is segmented, the next ones
                are read and sent.

        Yields:
            One `Prediction` per image, in their order: `image`, `cells`, and `output` or `error`.
        """
        return models.predict_many(
            self.connection,
            model,
            images,
            channel=channel,
            channels=channels,
            min_pixels=min_pixels,
            format=format,
            axes=axes,
            parallel=parallel,
        )

    def evaluate(
        self,
        model: str,
        dataset: str,
        split: str = "test",
        *,
        ious: Sequence[float] = (),
        channels: Channels | None = None,
        on_progress: Callable[[trainer_pb2.EvaluateResponse], None] | None = None,
    ) -> trainer_pb2.EvaluationReport:
        """Score a model on one split of a dataset.

        Args:
            model: Model id.
            dataset: Id of the dataset with the true labels.
            split: "train", "val" or "test".
            ious: IoU thresholds, above 0 to 1; empty: 0.5, 0.55, ... 0.9.
            channels: Image channels that the network gets, as for `predict`.
            on_progress: Called with every answer: `items_done`, `items_total`.
        """
        return models.evaluate(
            self.connection, model, dataset, split=split, ious=ious, channels=channels, on_progress=on_progress
        )

    def export(
        self,
        model: str,
        format: str,  # noqa: A002 - the field's name
        path: str | Path,
        *,
        force: bool = False,
    ) -> trainer_pb2.ExportHeader:
        """Write a model as a file for other tools.

        Args:
            model: Model id.
            format: "native" (the stock tool's own files), "saved_model", "torchscript", "onnx" or "bioimageio"; each
                backend has some of them (see `ExportFormat` in trainer.proto).
            path: File to write. It appears complete or not at all.
            force: Whether to overwrite an existing file.

        Returns:
            The file's usual name, its size in bytes and its SHA-256.

        Raises:
            AlreadyExists: The file exists and `force` is False.
        """
        return exports.export(self.connection, model, format, path, force=force)
