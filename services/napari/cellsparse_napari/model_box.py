"""The middle of the widget: which network, how to train it, and on which server."""

from collections.abc import Sequence
from typing import Any

from qtpy.QtWidgets import QComboBox, QFormLayout, QLineEdit, QPushButton, QSpinBox, QVBoxLayout, QWidget
from superqt import QCollapsible

from cellsparse import enum_names
from cellsparse.training_settings import backends
from cellsparse_napari.layer_box import narrow, row
from cellsparse_napari.work import ModelEntry
from cellsparse_proto.v1 import trainer_pb2

BACKENDS = {"cellpose": "Cellpose", "stardist": "StarDist (round cells)", "unet": "U-Net (ELEPHANT)"}
"""What known backends are called in the widget."""
PRESETS = {"fast": "Fast: useful soonest", "paper": "Paper: Sugawara 2023 to the letter"}
"""What known presets are called in the widget."""
FRESH = "Nothing: fresh weights"
MOST_STEPS = 1_000_000


class ModelBox(QWidget):
    """Chooses backend, preset, initial model and server."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._models: Sequence[ModelEntry] = ()
        self.backend = _box(BACKENDS, backends())
        self.preset = _box(PRESETS, enum_names.names(trainer_pb2.Preset.DESCRIPTOR))
        self.initial_model = narrow(QComboBox())
        self.initial_model.setToolTip("Training starts from this model; Segment and Save use it, too.")
        self.reload = QPushButton("↻")
        self.reload.setToolTip("Ask the server for its models")
        self.reload.setAccessibleName("Reload the models")
        self.reload.setMaximumWidth(32)
        self.steps = QSpinBox()
        self.steps.setRange(0, MOST_STEPS)
        self.steps.setSpecialValueText("as the preset says")
        self.address = QLineEdit()
        self.address.setPlaceholderText("the one that `cellsparse up` started")
        self.address.setToolTip("host:port of a Cellsparse server; empty for the one on this computer")
        self._arrange()
        self.backend.currentIndexChanged.connect(self._show_models)
        self._show_models()

    def _arrange(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Network", self.backend)
        form.addRow("Start from", row(self.initial_model, self.reload))
        inner = QWidget()
        details = QFormLayout(inner)
        details.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        details.addRow("Preset", self.preset)
        details.addRow("Steps", self.steps)
        details.addRow("Server", self.address)
        more = QCollapsible("Preset, steps, server", expandedIcon="▼", collapsedIcon="▶")
        more.addWidget(inner)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(more)

    def backend_name(self) -> str:
        """Return the chosen backend."""
        return str(self.backend.currentData())

    def preset_name(self) -> str:
        """Return the chosen preset."""
        return str(self.preset.currentData())

    def model(self) -> str:
        """Return the id of the chosen model; empty: none."""
        return str(self.initial_model.currentData() or "")

    def server(self) -> str:
        """Return host:port; empty: the local one."""
        return str(self.address.text()).strip()

    def set_models(self, models: Sequence[ModelEntry]) -> None:
        """Show the models of the server, newest first."""
        self._models = models
        self._show_models()

    def add_model(self, model: ModelEntry) -> None:
        """Add a new model and choose it: the next training goes on with it."""
        self.set_models([model, *(other for other in self._models if other.id != model.id)])
        self.initial_model.setCurrentIndex(max(self.initial_model.findData(model.id), 0))

    def _show_models(self, *_: object) -> None:
        """Show the models of the chosen backend, as others cannot start its training."""
        chosen = self.model()
        self.initial_model.clear()
        self.initial_model.addItem(FRESH, "")
        for model in self._models:
            if model.backend == self.backend_name():
                self.initial_model.addItem(model.title, model.id)
        self.initial_model.setCurrentIndex(max(self.initial_model.findData(chosen), 0))


def _box(titles: dict[str, str], names: Sequence[Any]) -> QComboBox:
    box = narrow(QComboBox())
    for name in names:
        box.addItem(titles.get(name, name), name)
    return box
