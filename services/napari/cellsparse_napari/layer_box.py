"""A list of layers to choose from, which follows the viewer's layers."""

from typing import Any

from qtpy.compat import isalive
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QWidget


class LayerBox(QComboBox):
    """Chooses one of the layers of a kind.

    Args:
        viewer: The napari viewer.
        kind: Class of the layers.
        parent: The widget it belongs to.
    """

    def __init__(self, viewer: Any, kind: type, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._kind = viewer, kind
        self._layers: list[Any] = []
        narrow(self)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.reordered):
            event.connect(self.refresh)
        self.refresh()

    def layer(self) -> Any:
        """Return the chosen layer; None if there is none to choose."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def choose(self, layer: Any) -> None:
        """Choose a layer of the list."""
        for index, other in enumerate(self._layers):
            if other == layer:
                self.setCurrentIndex(index)

    def refresh(self, *_: object) -> None:
        """Show the layers as they are called now. The choice stays, as long as its layer is there."""
        if not isalive(self):
            return  # napari still knows a widget that Qt has deleted
        chosen = self.layer()
        self._layers = [layer for layer in self._viewer.layers if isinstance(layer, self._kind)]
        self.blockSignals(True)
        self.clear()
        self.addItems([layer.name for layer in self._layers])
        self.choose(chosen)
        self.blockSignals(False)
        self.currentIndexChanged.emit(self.currentIndex())

    def showPopup(self) -> None:  # noqa: N802 - Qt's name
        """Show the list, with the names that layers have by now."""
        self.refresh()
        super().showPopup()


def narrow(box: QComboBox) -> QComboBox:
    """Let a box be narrower than its longest entry, as a dock has little room."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    return box


def row(*widgets: QWidget) -> QWidget:
    """Return widgets side by side; the first takes the room that is left."""
    box = QWidget()
    layout = QHBoxLayout(box)
    layout.setContentsMargins(0, 0, 0, 0)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, stretch=0 if index else 1)
    return box
