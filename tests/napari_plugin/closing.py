"""The application is closed while a model trains, as a user would do it.

python closing.py ADDRESS
"""

import sys

import numpy as np
from napari.components import ViewerModel
from napari.qt import get_qapp
from qtpy.QtCore import QTimer
from support.tiny_dataset import blobs

from cellsparse_napari.widget import TrainWidget

app = get_qapp()
viewer = ViewerModel()
widget = TrainWidget(viewer)
widget.model.address.setText(sys.argv[1])
widget.model.backend.setCurrentIndex(widget.model.backend.findData("unet"))
widget.model.steps.setValue(1_000_000)
widget.model.preset.setCurrentIndex(widget.model.preset.findData("paper"))  # which never ends early
image, label = blobs()
viewer.add_image(image)
viewer.add_labels(np.where(label < 3, label, 0))
widget.train.click()

timer = QTimer()
timer.timeout.connect(lambda: widget.status.text().startswith("Training: step") and app.quit())
timer.start(20)
app.exec()
print(f"left while busy: {widget.busy}")
