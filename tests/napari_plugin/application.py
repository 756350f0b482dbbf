"""The whole of napari on a screen, with the plugin: train on what is drawn, then take a picture of the window.

python application.py ADDRESS IMAGE.npy CELLS.npy BACKGROUND.npy BACKEND STEPS PICTURE.png
"""

import sys

import napari
import numpy as np
from qtpy.QtWidgets import QApplication
from support.limits import LONG_PATIENCE
from support.qt_loop import turn_until

from cellsparse_napari.labels import TITLES, Background


def main(address: str, image: str, cells: str, background: str, backend: str, steps: str, picture: str) -> None:
    viewer = napari.Viewer(show=False)
    _, widget = viewer.window.add_plugin_dock_widget("cellsparse-napari", "Train from a few cells")
    widget.model.address.setText(address)
    widget.model.backend.setCurrentIndex(widget.model.backend.findData(backend))
    widget.model.steps.setValue(int(steps))

    viewer.add_image(np.load(image), name="nuclei")
    widget.drawing.new_cells.click()
    widget.drawing.cells.layer().data = np.load(cells)
    widget.drawing.background.setCurrentIndex(list(TITLES).index(Background.OTHER_LAYER))
    widget.drawing.new_background.click()
    widget.drawing.drawn_background.layer().data = np.load(background)
    assert widget.drawing.cells.layer().name == "nuclei cells"

    widget.train.click()
    turn_until(lambda: not widget.busy, LONG_PATIENCE)
    assert "cells found in nuclei." in widget.status.text(), widget.status.text()

    viewer.window.resize(1500, 900)
    viewer.window._qt_window.show()
    viewer.reset_view()
    for _ in range(20):
        QApplication.processEvents()
    viewer.window.screenshot(path=picture, flash=False, canvas_only=False)
    viewer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
