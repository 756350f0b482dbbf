"""The upper part of the widget: which images, and what is drawn on them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.compat import isalive
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QListWidget, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from cellsparse.errors import InvalidArgument
from cellsparse_napari.labels import EXPLANATIONS, TITLES, Background
from cellsparse_napari.layer_box import LayerBox, narrow, row
from cellsparse_napari.pictures import picture, placement
from cellsparse_napari.work import Drawn

NO_IMAGE = "There is no image; open one in napari first."


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One image with its layers."""

    image: Any
    """The image layer."""
    labels: Any
    """The labels layer with the cells."""
    background: Background
    """Where background is."""
    background_labels: Any = None
    """The second labels layer; None if it is not asked for."""

    def layers(self) -> list[Any]:
        """Return all of its layers."""
        return [layer for layer in (self.image, self.labels, self.background_labels) if layer is not None]

    def title(self) -> str:
        """Return what the list shows."""
        return f"{self.image.name}: {self.labels.name} (background: {TITLES[self.background].lower()})"

    def drawn(self) -> Drawn:
        """Return what is drawn now. Labels are copied, as painting goes on while they are sent."""
        second = self.background_labels
        return Drawn(
            image=picture(self.image),
            labels=_snapshot(self.labels),
            labels_name=str(self.labels.name),
            background=self.background,
            background_labels=None if second is None else _snapshot(second),
            background_name="" if second is None else str(second.name),
        )


class DrawingBox(QWidget):
    """Chooses images, their labels layers and where background is."""

    changed = Signal()
    failed = Signal(object)
    """With the error of something that cannot be done."""

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._kept: list[Chosen] = []
        self.image = LayerBox(viewer, Image)
        self.cells = LayerBox(viewer, Labels)
        self.cells.setToolTip("The layer in which you drew cells, each with a number of its own.")
        self.new_cells = _small("New", "Add an empty labels layer for the cells of this image")
        self.background = narrow(QComboBox())
        for background, title in TITLES.items():
            self.background.addItem(title, background.value)
        self.explanation = QLabel()
        self.explanation.setWordWrap(True)
        self.drawn_background = LayerBox(viewer, Labels)
        self.new_background = _small("New", "Add an empty labels layer for the background of this image")
        self._background_row = row(self.drawn_background, self.new_background)
        self.list = QListWidget()
        self.list.setMaximumHeight(80)
        self.add = QPushButton("Add this image")
        self.add.setToolTip("Keep this image with its layers, and choose another one: all of them are trained on.")
        self.remove = QPushButton("Remove")
        self._arrange()
        self.new_cells.clicked.connect(self._make_cells)
        self.new_background.clicked.connect(self._make_background)
        self.background.currentIndexChanged.connect(self._explain)
        self.add.clicked.connect(self._keep)
        self.remove.clicked.connect(self._forget)
        self.image.currentIndexChanged.connect(self.changed)
        viewer.layers.events.removed.connect(self._drop_removed)
        self._explain()

    def _arrange(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Image", self.image)
        form.addRow("Cells", row(self.cells, self.new_cells))
        form.addRow("Background", self.background)
        form.addRow("", self._background_row)
        more = QCollapsible("More images", expandedIcon="▼", collapsedIcon="▶")
        more.addWidget(self.list)
        more.addWidget(row(self.add, self.remove))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.explanation)
        layout.addWidget(more)

    def choice(self) -> Background:
        """Return where background is."""
        return Background(self.background.currentData())

    def current(self) -> Chosen:
        """Return the image that is chosen now.

        Raises:
            InvalidArgument: A layer is missing.
        """
        image, labels, background = self.image.layer(), self.cells.layer(), self.choice()
        if image is None:
            raise InvalidArgument(NO_IMAGE, "image")
        if labels is None:
            raise InvalidArgument("There is no labels layer; press New beside Cells, and draw a few cells.", "labels")
        second = self.drawn_background.layer() if background is Background.OTHER_LAYER else None
        if second is not None and second == labels:
            raise InvalidArgument(
                f"Layer {labels.name!r} is chosen for both cells and background; draw background in another one.",
                "background",
            )
        return Chosen(image=image, labels=labels, background=background, background_labels=second)

    def all(self) -> Sequence[Chosen]:
        """Return all images to train on: those that were added, and the one that is chosen now.

        Raises:
            InvalidArgument: A layer is missing.
        """
        current = self.current()
        return [*(kept for kept in self._kept if not _same(kept, current)), current]

    def count(self) -> int:
        """Return on how many images will be trained."""
        try:
            return len(self.all())
        except InvalidArgument:
            return len(self._kept)

    def _keep(self) -> None:
        try:
            current = self.current()
        except InvalidArgument as error:
            self.failed.emit(error)
            return
        self._kept = [kept for kept in self._kept if not _same(kept, current)] + [current]
        self._show_kept()

    def _forget(self) -> None:
        index = self.list.currentRow()
        if 0 <= index < len(self._kept):
            del self._kept[index]
            self._show_kept()

    def _drop_removed(self, *_: object) -> None:
        if isalive(self):
            layers = list(self._viewer.layers)
            self._kept = [kept for kept in self._kept if all(layer in layers for layer in kept.layers())]
            self._show_kept()

    def _show_kept(self) -> None:
        self.list.clear()
        self.list.addItems([kept.title() for kept in self._kept])
        self.changed.emit()

    def _explain(self, *_: object) -> None:
        self.explanation.setText(EXPLANATIONS[self.choice()])
        self._background_row.setVisible(self.choice() is Background.OTHER_LAYER)

    def _make_cells(self) -> None:
        self._make_layer("cells", self.cells)

    def _make_background(self) -> None:
        self._make_layer("background", self.drawn_background)

    def _make_layer(self, purpose: str, box: LayerBox) -> None:
        """Add an empty labels layer of the image's size and place, ready to be painted in, and choose it."""
        layer = self.image.layer()
        try:
            if layer is None:
                raise InvalidArgument(NO_IMAGE, "image")
            image = picture(layer)
        except InvalidArgument as error:
            self.failed.emit(error)
            return
        empty = np.zeros(image.label_shape, np.int32)
        made = self._viewer.add_labels(empty, name=f"{layer.name} {purpose}", **placement(layer, image))
        made.mode = "paint"
        box.choose(made)


def _same(one: Chosen, other: Chosen) -> bool:
    return bool(one.image == other.image)


def _small(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setMaximumWidth(56)
    return button


def _snapshot(layer: Any) -> Any:
    data = layer.data[0] if layer.multiscale else layer.data
    return data.copy() if isinstance(data, np.ndarray) else data
