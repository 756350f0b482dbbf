"""The dock widget: train from a few cells, segment, save the model."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from napari.qt.threading import create_worker
from napari.utils.notifications import show_error, show_info
from qtpy.compat import isalive
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QLabel, QProgressBar, QPushButton, QScrollArea, QVBoxLayout, QWidget

from cellsparse.errors import Cancelled, CellsparseError, InvalidArgument
from cellsparse_napari import work
from cellsparse_napari.drawing_box import NO_IMAGE, DrawingBox
from cellsparse_napari.layer_box import row
from cellsparse_napari.model_box import ModelBox
from cellsparse_napari.pictures import picture, placement
from cellsparse_napari.polling import polled
from cellsparse_napari.progress import Progress
from cellsparse_napari.session import Session

INTRODUCTION = "Draw a few whole cells in a labels layer, each with its own number, and press Train."
NOTHING_FOUND = "No cell was found. Draw more whole cells, dark and bright ones, and some background, and train again."
CONTOUR_PIXELS = 1
MINIMUM_WIDTH = 320


class TrainWidget(QWidget):
    """Trains a model from a few cells on a Cellsparse server, and shows what it finds.

    Args:
        napari_viewer: The viewer.
    """

    def __init__(self, napari_viewer: Any) -> None:  # napari passes the viewer to an argument of this name
        super().__init__()
        self._viewer = napari_viewer
        self._session: Session | None = None
        self._cancelling = self._shown = False
        self._segmented: list[Any] = []
        self.drawing = DrawingBox(napari_viewer)
        self.model = ModelBox()
        self.train = QPushButton()
        self.cancel = QPushButton("Cancel")
        self.bar = QProgressBar()
        self.status = QLabel(INTRODUCTION)
        self.status.setWordWrap(True)
        self.segment = QPushButton("Segment this image")
        self.segment.setToolTip("Segment the chosen image with the model that is chosen as start")
        self.save = QPushButton("Save model ...")
        self.save.setToolTip("Write the model that is chosen as start into a file for other tools")
        self._arrange()
        self.train.clicked.connect(self.start_training)
        self.cancel.clicked.connect(self.cancel_work)
        self.segment.clicked.connect(self.start_segmenting)
        self.save.clicked.connect(self.ask_and_save)
        self.model.reload.clicked.connect(partial(self.load_models, quiet=False))
        self.model.initial_model.currentIndexChanged.connect(self._enable)
        self.drawing.changed.connect(self._enable)
        self.drawing.failed.connect(self._fail)
        self._enable()

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Ask for the server's models when the widget is first seen."""
        super().showEvent(event)
        if not self._shown:
            self._shown = True
            self.load_models(quiet=True)

    def _arrange(self) -> None:
        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.addWidget(self.drawing)
        layout.addWidget(self.model)
        layout.addWidget(row(self.train, self.cancel))
        layout.addWidget(self.bar)
        layout.addWidget(self.status)
        layout.addWidget(row(self.segment, self.save))
        layout.addStretch()
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inner)
        area.setMinimumWidth(MINIMUM_WIDTH)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.bar.hide()

    @property
    def busy(self) -> bool:
        """Whether something is going on that can be cancelled."""
        return self._session is not None

    def start_training(self, *_: object) -> None:
        """Train on what is drawn, then segment the images."""
        try:
            chosen = self.drawing.all()
            order = work.Order(
                drawn=[one.drawn() for one in chosen],
                backend=self.model.backend_name(),
                preset=self.model.preset_name(),
                initial_model=self.model.model(),
                steps=self.model.steps.value(),
            )
        except CellsparseError as error:
            self._fail(error)
            return
        self._start([one.image for one in chosen], lambda session: work.train(session, order))

    def start_segmenting(self, *_: object) -> None:
        """Segment the chosen image with the chosen model."""
        layer, model = self.drawing.image.layer(), self.model.model()
        try:
            if layer is None:
                raise InvalidArgument(NO_IMAGE, "image")
            image = picture(layer)
        except CellsparseError as error:
            self._fail(error)
            return
        self._start([layer], lambda session: work.segment(session, model, [image]))

    def ask_and_save(self, *_: object) -> None:
        """Ask for a file and write the chosen model into it."""
        filters = list(work.EXPORTS.values())
        name, kind = QFileDialog.getSaveFileName(self, "Save the model", "", ";;".join(filters))
        if name:
            form = list(work.EXPORTS)[filters.index(kind)] if kind in filters else next(iter(work.EXPORTS))
            self.save_model(form, Path(name))

    def save_model(self, form: str, path: Path) -> None:
        """Write the chosen model into a file that the user has agreed to overwrite."""
        model = self.model.model()
        suffix = work.EXPORTS[form].rpartition("*")[2].rstrip(")")
        target = path if path.suffix else path.with_suffix(suffix)
        overwrite = target == path  # nobody was asked about a file of another name
        self._start([], lambda session: work.export(session, model, form, target, overwrite=overwrite))

    def load_models(self, *_: object, quiet: bool) -> None:
        """Ask the server for its models; quietly, a hint says that there is no server yet."""
        failed = self._hint if quiet else self._fail
        self._run(Session(self.model.server()), work.list_models, failed)

    def cancel_work(self, *_: object) -> None:
        """Cancel what goes on. It ends by itself when the server has done so."""
        if self._session is None:
            return
        session = self._session
        self._cancelling = True
        self.cancel.setEnabled(False)
        self.status.setText("Cancelling ...")

        def cancelling(session: Session) -> Iterator[None]:
            session.cancel()
            yield

        self._run(session, cancelling, self._fail_to_cancel)

    def _start(self, layers: list[Any], steps: Callable[[Session], Iterator[Any]]) -> None:
        if self.busy:
            return
        session = self._session = Session(self.model.server())
        self._segmented = layers
        self.status.setText("Starting ...")
        self.bar.setRange(0, 0)
        self.bar.show()
        self._enable()
        self._run(session, steps, self._fail, finished=self._end, aborted=self.cancel_work)

    def _run(
        self,
        session: Session,
        steps: Callable[[Session], Iterator[Any]],
        failed: Callable[[CellsparseError], None],
        **connected: Callable[[], None],
    ) -> None:
        """Do the steps in another thread, and show what they yield.

        Errors of the SDK arrive as values, since napari shows exceptions with all their calls.
        """

        def guarded() -> Iterator[Any]:
            try:
                for news in polled(lambda: steps(session), session.leave):
                    yield session.take_note() if news is None else news
            except CellsparseError as error:
                yield error

        def arrived(value: Any) -> None:
            if not isalive(self):
                return  # the user has closed it meanwhile
            if isinstance(value, CellsparseError):
                failed(value)
            else:
                self._show(value)

        create_worker(guarded, _connect={"yielded": arrived, **connected})

    def _show(self, news: Any) -> None:
        if isinstance(news, Progress):
            self._show_progress(news)
        elif isinstance(news, work.ModelEntry):
            self.model.add_model(news)
        elif isinstance(news, work.Segmented):
            self._show_cells(news)
        elif isinstance(news, Path):
            self.status.setText(f"The model is saved in {news}.")
            show_info(f"The model is saved in {news}.")
        elif isinstance(news, list):
            self.model.set_models(news)
        elif news and not self._cancelling:
            self.status.setText(news)

    def _show_progress(self, news: Progress) -> None:
        if self._cancelling:
            return  # its text stays
        self.status.setText(news.text)
        self.bar.setRange(0, 0 if news.fraction is None else 1000)
        self.bar.setValue(round(1000 * (news.fraction or 0)))

    def _show_cells(self, news: work.Segmented) -> None:
        layer = self._segmented[news.index]
        image = picture(layer)
        added = self._viewer.add_labels(
            news.labels.reshape(image.label_shape),
            name=f"{layer.name} segmented",
            metadata={"cellsparse_model": news.model},
            **placement(layer, image),
        )
        added.contour = CONTOUR_PIXELS
        self.status.setText(f"{news.cells:,} cells found in {layer.name}." if news.cells else NOTHING_FOUND)

    def _fail(self, error: CellsparseError) -> None:
        if isinstance(error, Cancelled):
            self.status.setText(error.message)
            return
        self.status.setText(error.message)
        show_error(error.message)

    def _fail_to_cancel(self, error: CellsparseError) -> None:
        if not isinstance(error, Cancelled):
            show_error(error.message)

    def _hint(self, error: CellsparseError) -> None:
        """Say below the introduction that there is no server yet."""
        if not self.busy:
            self.status.setText(f"{INTRODUCTION}\n{error.message}")

    def _end(self) -> None:
        self._session, self._cancelling = None, False
        self.bar.hide()
        self._enable()

    def _enable(self, *_: object) -> None:
        count = self.drawing.count()
        self.train.setText(f"Train on {count} images" if count > 1 else "Train")
        self.train.setEnabled(not self.busy)
        self.cancel.setEnabled(self.busy)
        ready = not self.busy and bool(self.model.model())
        self.segment.setEnabled(ready)
        self.save.setEnabled(ready)
