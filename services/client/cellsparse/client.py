"""The client of an orchestrator."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from cellsparse import (
    access,
    dataset_export,
    datasets,
    deletion,
    enum_names,
    exports,
    model_import,
    models,
    project_images,
    prompters,
    runs,
    studies,
    study_grid,
    suggestions,
)
from cellsparse.connection import Connection
from cellsparse.dataset_export import ExportedItem
from cellsparse.datasets import ItemArrays
from cellsparse.errors import Internal
from cellsparse.items import Content, Items, Stored
from cellsparse.models import Channels, Prediction
from cellsparse.reconnect import OnLost
from cellsparse.runs import Run
from cellsparse.studies import StudyHandle
from cellsparse.study_report import StudyReport
from cellsparse.suggestions import Suggestions
from cellsparse.training_settings import sparsify_settings, training_settings
from cellsparse_proto.v1 import (
    access_pb2,
    admin_pb2,
    common_pb2,
    dataset_pb2,
    orchestrator_pb2,
    project_pb2,
    prompter_pb2,
    study_pb2,
    trainer_pb2,
)

if TYPE_CHECKING:
    from cellsparse_common.imaging.types import Labels

SCRUB_SECONDS = 7 * 86_400.0
"""Longest time of a scrub."""
FileFormat: TypeAlias = Literal["geojson", "roi", "ome-tiff", "ome-zarr", "ome-zarr-0.4", "coco", "seg"]
"""File formats of predictions, beside label images."""


class Client:
    """Client of one orchestrator. Every method raises `cellsparse.errors.CellsparseError` with one sentence.

    Args:
        address: host:port. Default: CELLSPARSE_ADDRESS, or the orchestrator that `cellsparse up` started.
        timeout: Deadline of an ordinary call, seconds.
        ca: PEM file of the authorities that sign the orchestrator's certificate, or "system" for public ones; not
            given: CELLSPARSE_TLS_CA, else a connection without TLS. If the orchestrator requires a client certificate,
            CELLSPARSE_TLS_CERT and CELLSPARSE_TLS_KEY name its files.
        token: What the orchestrator knows you by, if it asks for tokens; not given: CELLSPARSE_TOKEN_FILE,
            CELLSPARSE_TOKEN, or what `cellsparse login` keeps.

    Raises:
        Unavailable: No address is known.
        InvalidArgument: The file of a certificate or token cannot be read, or a token would be sent over a network
            without TLS.
    """

    def __init__(
        self, address: str | None = None, timeout: float = 30.0, *, ca: str | None = None, token: str | None = None
    ) -> None:
        self.connection = Connection(address, timeout, ca, token=token)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def status(self, timeout: float | None = None) -> orchestrator_pb2.GetStatusResponse:
        """Return all services and their health."""
        request = orchestrator_pb2.GetStatusRequest()
        answer: orchestrator_pb2.GetStatusResponse = self.connection.call("GetStatus", request, timeout=timeout)
        return answer

    def create_dataset(
        self,
        name: str,
        items: Items,
        label_kind: str = "instances",
        *,
        on_report: Callable[[dataset_pb2.UploadReport], None] | None = None,
    ) -> dataset_pb2.Dataset:
        """Upload a dataset. Nothing is stored unless all of it is valid; an error names all items that are not.

        Args:
            name: Display name.
            items: `Item`s or (name, split, image, label) tuples, read one at a time, so that an iterator may be of any
                length. Image and label are paths, file contents or arrays. All are 2D, or all are stacks of planes.
                `Item` also takes `axes`, `spacing` and `channels`. CZI, LIF and ND2 files (with `cellsparse[vendor]`)
                and OME-Zarr folders are read on this machine, `Stored` images in the orchestrator's store.
            label_kind: "instances", "binary" or "offset_by_one" (see `LabelKind` in dataset.proto).
            on_report: Called at the end with what was read, per item: cells, background and unlabelled pixels, shapes
                that are no labels, and sentences on these (see `UploadReport` in dataset.proto).
        """
        made, report = datasets.create(self.connection, name, items, label_kind)
        if on_report is not None:
            on_report(report)
        return made

    def datasets(self) -> Iterator[dataset_pb2.Dataset]:
        """Yield all datasets, newest first."""
        return datasets.listed(self.connection)

    def dataset(self, dataset_id: str) -> dataset_pb2.Dataset:
        """Return one dataset."""
        return datasets.get(self.connection, dataset_id)

    def dataset_items(self, dataset_id: str) -> Iterator[dataset_pb2.DatasetItem]:
        """Yield a dataset's items, in their order."""
        return datasets.items(self.connection, dataset_id)

    def dataset_item(self, dataset_id: str, item: str) -> ItemArrays:
        """Fetch one item's image and labels."""
        return datasets.item_arrays(self.connection, dataset_id, item)

    def export_dataset(
        self,
        dataset_id: str,
        folder: str | Path,
        *,
        format: str = "tiff",  # noqa: A002 - the option's name
        splits: Sequence[str] = (),
        force: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[ExportedItem]:
        """Write a dataset's images and labels into a folder, from which an import makes the same dataset again.

        Args:
            dataset_id: Its id.
            folder: Gets `train/images/NAME.tif`, `train/masks/NAME.tif` and so on. Labels of format "seg" lie beside
                the image, where Cellpose looks for them.
            format: Of the labels: "tiff", "ome-tiff", "ome-zarr", "ome-zarr-0.4", "seg", "coco", "geojson" or "roi".
                The last three number the cells anew, in their order; "coco" holds 2D images only.
            splits: Which to write; empty: all.
            force: Whether files that are there are replaced.
            on_progress: Called with the numbers of written and of all items.

        Returns:
            The files of each item.

        Raises:
            InvalidArgument: Unknown format or split, stacks in a format of outlines, or a folder that cannot be used.
            AlreadyExists: A file is there already; nothing is written.
        """
        return dataset_export.export(
            self.connection,
            dataset_id,
            Path(folder),
            format_=format,
            splits=splits,
            force=force,
            on_progress=on_progress,
        )

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset that no unfinished run needs."""
        datasets.delete(self.connection, dataset_id)

    def sparsify(
        self,
        dataset: str,
        *,
        mode: str = "minmax",
        k: int | None = None,
        background: str = "shifted",
        distance: int | None = None,
        total_cells: int | None = None,
        percent: float | None = None,
        seed: int = 0,
        channel: int | str | None = None,
        splits: Sequence[str] = (),
        name: str = "",
        on_progress: Callable[[dataset_pb2.CreateSparseDatasetResponse], None] | None = None,
    ) -> dataset_pb2.Dataset:
        """Create a dataset in which the chosen splits keep a few cells. Other splits are copied unchanged.

        Args:
            dataset: Dataset id.
            mode: "min", "max", "minmax" or "random".
            k: Cells per image: k of the mode, so 2k in all. Give this or `total_cells` or `percent`.
            background: "none", "shifted", "ring" or "all".
            distance: Pixels, for shifted and ring; not given: 10.
            total_cells: Cells over all sparsified items together.
            percent: Percent of the candidate cells over all sparsified items together, above 0 to 100.
            seed: Seed of mode random.
            channel: Channel that intensity is taken from, a number from 0 or a name; not given: the mean of all.
            splits: Of "train", "val", "test"; empty: train and val.
            name: Name of the new dataset; empty: made from the source's and the settings.
            on_progress: Called with every answer: `items_done`, `items_total`, `warnings`.
        """
        settings = sparsify_settings(
            mode=mode,
            k=k,
            background=background,
            distance=distance,
            total_cells=total_cells,
            percent=percent,
            seed=seed,
            channel=channel,
        )
        return datasets.sparsify(self.connection, dataset, settings, splits=splits, name=name, on_progress=on_progress)

    def train(
        self,
        dataset: str,
        backend: str = "cellpose",
        *,
        name: str = "",
        request_id: str = "",
        max_attempts: int | None = None,
        priority: int = 0,
        **settings: Any,
    ) -> Run:
        """Queue a training run.

        Args:
            dataset: Dataset id.
            backend: One of `training_settings.backends()`, such as "cellpose".
            name: Display name; empty: made from backend and dataset.
            request_id: Idempotency key: repeated calls with the same one create one run.
            max_attempts: 1 to 10; not given: 3.
            priority: Larger starts earlier, -100 to 100.
            **settings: Fields of TrainingSettings and of the backend's own settings: preset="fast", steps=100,
                n_rays=32, initial_model="model-..." to start from its weights. The error for an unknown one lists
                all settings and their ranges.

        Returns:
            A handle: `run.wait()`, `run.watch()`, `run.cancel()`.
        """
        request = orchestrator_pb2.CreateRunRequest(
            request_id=request_id,
            name=name,
            dataset_id=dataset,
            settings=training_settings(backend, settings),
            max_attempts=max_attempts,
            priority=priority,
        )
        return Run(self.connection.call("CreateRun", request).run.id, self.connection)

    def train_all(
        self,
        dataset: str,
        settings: Iterable[Mapping[str, Any]],
        *,
        request_id: str = "",
        max_attempts: int | None = None,
        priority: int = 0,
    ) -> list[Run]:
        """Queue up to 100 training runs on one dataset: all of them, or none if one is refused.

        Args:
            dataset: Dataset id.
            settings: For each run what `train` takes: {"backend": "unet", "name": "slow", "steps": 1000}.
            request_id: Idempotency key: repeated calls with the same one create the runs once.
            max_attempts: Of each run, 1 to 10; not given: 3.
            priority: Of each run. Larger starts earlier, -100 to 100.

        Returns:
            A handle for each run, in the order of the settings.
        """

        def asked(backend: str = "cellpose", name: str = "", **chosen: Any) -> orchestrator_pb2.CreateRunRequest:
            return orchestrator_pb2.CreateRunRequest(
                name=name,
                dataset_id=dataset,
                settings=training_settings(backend, chosen),
                max_attempts=max_attempts,
                priority=priority,
            )

        runs = [asked(**each) for each in settings]
        request = orchestrator_pb2.CreateRunsRequest(request_id=request_id, runs=runs)
        return [Run(made.id, self.connection) for made in self.connection.call("CreateRuns", request).runs]

    def run(self, run_id: str) -> orchestrator_pb2.Run:
        """Return one run."""
        return runs.get(self.connection, run_id)

    def runs(
        self, *, states: Sequence[str] = (), backend: str = "", dataset: str = ""
    ) -> Iterator[orchestrator_pb2.Run]:
        """Yield runs, newest first.

        Args:
            states: Only these: "queued", "starting", "running", "retrying", "succeeded", "failed", "cancelled".
            backend: Only this backend.
            dataset: Only this dataset id.
        """
        numbers = [enum_names.number(common_pb2.RunState.DESCRIPTOR, state, "states") for state in states]

        def request(page: Any) -> orchestrator_pb2.ListRunsRequest:
            return orchestrator_pb2.ListRunsRequest(page=page, states=numbers, backend=backend, dataset_id=dataset)

        return self.connection.pages("ListRuns", request, "runs")

    def watch(
        self,
        run_id: str,
        after: int = 0,
        *,
        on_lost: OnLost = lambda *_: None,
        on_back: Callable[[], None] = lambda: None,
    ) -> Iterator[orchestrator_pb2.RunEvent]:
        """Yield a run's events until it has ended. Survives outages of up to 30 s (see `cellsparse.runs.watch`)."""
        return runs.watch(self.connection, run_id, after, on_lost=on_lost, on_back=on_back)

    def cancel(self, run_id: str) -> orchestrator_pb2.Run:
        """Request the cancellation of a run. A run that has ended does not change."""
        return runs.cancel(self.connection, run_id)

    def study(
        self,
        dataset: str,
        *,
        preset: str = "",
        modes: Sequence[str] = (),
        backgrounds: Sequence[str] = (),
        k: Sequence[int | str] = (),
        backends: Sequence[str] = (),
        seeds: Sequence[int | str] = (),
        distance: int | None = None,
        settings: Mapping[str, Sequence[Any]] | None = None,
        split: str = "test",
        name: str = "",
        request_id: str = "",
        max_attempts: int | None = None,
        priority: int = 0,
    ) -> StudyHandle:
        """Start a study: one run for every combination of the given values.

        Args:
            dataset: Id of a dataset with dense labels; each combination of mode, background and k makes it sparse once.
            preset: "paper" gives axes that are left empty the paper's values: 108 members.
            modes: Of "min", "max", "minmax", "random"; modes, backgrounds and k all empty: the dataset's own labels.
            backgrounds: Of "none", "shifted", "ring", "all".
            k: Cells per image of the mode, 1 to 65,535; "all": every cell.
            backends: Of `training_settings.backends()`.
            seeds: Seeds of training, and of mode random; empty: 0.
            distance: Pixels, for shifted and ring; not given: 10.
            settings: Values by name of a training setting: {"preset": "paper", "steps": [100, 200]}; "unet.steps" holds
                for that backend alone. One value holds for all members.
            split: Scores the models with the dataset's dense labels: "test" or "val".
            name: Display name; empty: made from that of the dataset.
            request_id: Idempotency key: repeated calls with the same one create one study.
            max_attempts: Of each run, 1 to 10; not given: 3.
            priority: Of the runs, -100 to 100; larger starts earlier.

        Returns:
            A handle: `study.wait()`, `study.pause()`, `study.report().write(folder)`.
        """
        grid = study_grid.make_grid(
            preset=preset,
            modes=modes,
            backgrounds=backgrounds,
            k=k,
            backends=backends,
            seeds=seeds,
            distance=distance,
            settings=settings,
        )
        request = study_pb2.CreateStudyRequest(
            request_id=request_id,
            name=name,
            dataset_id=dataset,
            grid=grid,
            split=study_grid.split_number(split),
            priority=priority,
            max_attempts=max_attempts,
        )
        return studies.create(self.connection, request)

    def study_info(self, study_id: str) -> study_pb2.Study:
        """Return one study."""
        return studies.get(self.connection, study_id)

    def studies(self) -> Iterator[study_pb2.Study]:
        """Yield studies, newest first."""
        return studies.listed(self.connection)

    def study_members(self, study_id: str) -> Iterator[study_pb2.StudyMember]:
        """Yield a study's members in their order."""
        return studies.members(self.connection, study_id)

    def watch_study(
        self,
        study_id: str,
        after: int = 0,
        *,
        on_lost: OnLost = lambda *_: None,
        on_back: Callable[[], None] = lambda: None,
    ) -> Iterator[study_pb2.WatchStudyResponse]:
        """Yield a study with its changed members until it has ended. Survives outages of up to 30 s."""
        return studies.watch(self.connection, study_id, after, on_lost=on_lost, on_back=on_back)

    def pause_study(self, study_id: str) -> study_pb2.Study:
        """Start no more members. Those that are training continue."""
        return studies.change(self.connection, study_id, "Pause")

    def resume_study(self, study_id: str) -> study_pb2.Study:
        """Resume a paused study."""
        return studies.change(self.connection, study_id, "Resume")

    def cancel_study(self, study_id: str) -> study_pb2.Study:
        """Cancel all members that have not ended. A study that has ended does not change."""
        return studies.change(self.connection, study_id, "Cancel")

    def delete_study(self, study_id: str) -> None:
        """Delete a study that has ended. Its runs, models and label sets remain."""
        studies.delete(self.connection, study_id)

    def study_report(self, study_id: str) -> StudyReport:
        """Return a study's report; of a running study, the results so far."""
        return studies.report(self.connection, study_id)

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

    def projects(self) -> Iterator[project_pb2.Project]:
        """Yield all projects of the page, newest first."""
        return suggestions.projects(self.connection)

    def project(self, project_id: str) -> project_pb2.Project:
        """Return one project."""
        return suggestions.project(self.connection, project_id)

    def project_images(self, project_id: str) -> Iterator[project_pb2.ProjectImage]:
        """Yield a project's images in the order in which they were added."""
        return suggestions.project_images(self.connection, project_id)

    def add_project_image(
        self,
        project: str,
        image: "Content | Stored",
        *,
        name: str = "",
        axes: str = "",
        spacing: Sequence[float] = (),
        channels: Sequence[str] = (),
        series: int | None = None,
        time: int | None = None,
        z: int | None = None,
    ) -> project_pb2.ProjectImage:
        """Add an image to a project of the page.

        CZI, LIF and ND2 files (with `cellsparse[vendor]`) and OME-Zarr folders are read on this machine.

        Args:
            project: Project id.
            image: Path, content of a file, array, or where it is in the orchestrator's store (`Stored`).
            name: Name for people; empty: the file's. A number is added if the project has the name already.
            axes: Axes of the image, where the file does not name them (see `Item.axes`).
            spacing: Micrometres per pixel along y and x, of a stack along z, y and x; empty: from the file.
            channels: Names of the channels in their order; empty: from the file.
            series: Which image of a file that holds several, from 0.
            time: Which time point, from 0.
            z: Which plane of a stack, from 0; not given: the whole stack.
        """
        return project_images.add(
            self.connection,
            project,
            image,
            name=name,
            axes=axes,
            spacing=spacing,
            channels=channels,
            series=series,
            time=time,
            z=z,
        )

    def suggest(
        self,
        project: str = "",
        count: int = 8,
        *,
        dataset: str = "",
        method: str = "auto",
        models: Sequence[str] = (),
        max_images: int = 0,
        backgrounds: int | None = None,
        seed: int = 0,
    ) -> Suggestions:
        """Return which cells and spots of background of a project or a dataset to mark next, each with a reason.

        Args:
            project: Project id.
            count: Most cells, at most 3 of an image, of a stack 3 of a plane.
            dataset: Id of a dataset whose training items are looked at, in place of a project.
            method: "auto", "random", "minmax", "typical" or "errors" (see `SuggestionMethod` in suggestion.proto).
            models: Ids of models that predict; empty: the newest model of the project or dataset, for auto and errors.
            max_images: Most images to look at; 0: 64, with a model 32.
            backgrounds: Most spots of background; not given: one for every four cells.
            seed: Decides which images are looked at where there are more.
        """
        return suggestions.suggest(
            self.connection,
            project,
            dataset,
            count=count,
            method=method,
            models=models,
            max_images=max_images,
            backgrounds=backgrounds,
            seed=seed,
        )

    def add_prompter(
        self,
        name: str,
        encoder: str | Path,
        decoder: str | Path,
        *,
        licence: str,
        sha256: tuple[str, str] | None = None,
    ) -> prompter_pb2.Prompter:
        """Add a Segment Anything model for prompts in the page. Nothing is stored unless both files are ONNX.

        Args:
            name: Small letters, digits and dashes.
            encoder: ONNX file, or an https: or s3: URL of one.
            decoder: Likewise.
            licence: Licence of the weights, shown beside what they propose.
            sha256: SHA-256 of encoder and decoder, hex; needed for URLs.
        """
        return prompters.add(self.connection, name, encoder, decoder, licence=licence, sha256=sha256)

    def prompters(self) -> Iterator[prompter_pb2.Prompter]:
        """Yield the prompters that users added, newest first."""
        return prompters.listed(self.connection)

    def remove_prompter(self, name: str) -> None:
        """Delete a prompter with its weights."""
        prompters.remove(self.connection, name)

    def scrub(self, *, max_mib_per_second: int = 50) -> Iterator[admin_pb2.ScrubResponse]:
        """Read every blob of the store and compare it with its hash; nothing is changed or deleted.

        Args:
            max_mib_per_second: Most that is read per second, MiB, 1 to 100,000.

        Yields:
            Progress, then a finding for each blob that is missing, rotten or unreferenced, and at last a summary.
        """
        request = admin_pb2.ScrubRequest(max_mib_per_second=max_mib_per_second)
        yield from self.connection.stream("Scrub", request, timeout=SCRUB_SECONDS)

    def collect(self, *, dry_run: bool = False) -> Iterator[admin_pb2.CollectResponse]:
        """Remove for good what was deleted longer ago than the grace time, and what nothing refers to any more.

        Args:
            dry_run: Remove nothing, but say what would be removed.

        Yields:
            Progress, and at last a summary.
        """
        return deletion.collect(self.connection, dry_run=dry_run)

    def delete(self, kind: deletion.Kind, thing_id: str) -> None:
        """Delete something that nothing needs. It can be undeleted until its grace time is over.

        Args:
            kind: "dataset", "run", "model", "study" or "project".
            thing_id: Its id.
        """
        deletion.delete(self.connection, kind, thing_id)

    def undelete(self, kind: deletion.Kind, thing_id: str) -> None:
        """Undelete something, as it was.

        Args:
            kind: "dataset", "run", "model", "study" or "project".
            thing_id: Its id.
        """
        deletion.undelete(self.connection, kind, thing_id)

    def deleted(self, kind: deletion.Kind | Literal[""] = "") -> Iterator[orchestrator_pb2.Deleted]:
        """Yield what is deleted and can be undeleted, newest deletion first.

        Args:
            kind: Only this kind; empty: all.
        """
        return deletion.listed(self.connection, kind)

    def caller(self) -> access_pb2.GetCallerResponse:
        """Return who the orchestrator takes the caller for."""
        answer: access_pb2.GetCallerResponse = self.connection.call("GetCaller", access_pb2.GetCallerRequest())
        return answer

    def create_token(
        self, name: str, role: str, *, project: str = "", days: int | None = None
    ) -> access_pb2.CreateTokenResponse:
        """Make a token. Its secret is in this answer only.

        Args:
            name: Whose it is, or what it is for.
            role: "reader", "annotator" or "admin".
            project: Id or name of the project that it is for; only an admin's token may do without.
            days: When it ends, days from now, 1 to 3650; None: never.
        """
        return access.create_token(self.connection, name, role, project, days)

    def create_project(self, name: str) -> project_pb2.Project:
        """Make a project.

        Args:
            name: For people, at most 100 characters.
        """
        answer: project_pb2.CreateProjectResponse = self.connection.call(
            "CreateProject", project_pb2.CreateProjectRequest(name=name)
        )
        return answer.project

    def set_limits(
        self,
        project_id: str,
        *,
        bytes: int | None = None,  # noqa: A002 - as the proto's field
        items: int | None = None,
        runs: int | None = None,
        gpu_hours: float | None = None,
        checkpoint_days: int | None = None,
    ) -> project_pb2.Project:
        """Set the limits of a project in place of those before; for administrators.

        Args:
            project_id: The project.
            bytes: Most bytes of its datasets and images in the store; None: no limit.
            items: Most items of its datasets and images together; None: no limit.
            runs: Most runs that have not ended; None: no limit.
            gpu_hours: Most hours of its attempts, times their processes; None: no limit.
            checkpoint_days: Days after which a run that has ended keeps two checkpoints only; None: as the server says.

        Returns:
            The project, with limits and use.
        """
        limits = project_pb2.ProjectLimits(
            bytes=bytes, items=items, runs=runs, gpu_hours=gpu_hours, checkpoint_days=checkpoint_days
        )
        answer: admin_pb2.SetProjectLimitsResponse = self.connection.call(
            "SetProjectLimits", admin_pb2.SetProjectLimitsRequest(project_id=project_id, limits=limits)
        )
        return answer.project

    def tokens(self) -> Iterator[access_pb2.Token]:
        """Yield all tokens, newest first, with those that have ended."""
        return self.connection.pages("ListTokens", access_pb2.ListTokensRequest, "tokens")

    def revoke_token(self, token_id: str) -> access_pb2.Token:
        """Revoke a token for good."""
        answer: access_pb2.RevokeTokenResponse = self.connection.call(
            "RevokeToken", access_pb2.RevokeTokenRequest(token_id=token_id)
        )
        return answer.token

    def changes(self, *, token_id: str = "", project_id: str = "") -> Iterator[access_pb2.Change]:
        """Yield the calls that changed something, or tried to, newest first.

        Args:
            token_id: Of this token only.
            project_id: By tokens of this project only.
        """
        return access.changes(self.connection, token_id, project_id)
