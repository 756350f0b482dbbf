"""The widget in a viewer without a window, against a real orchestrator; only its backend is without a framework."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import grpc
import numpy as np
import pytest
from support.limits import PATIENCE
from support.orchestrator import Orchestrator
from support.qt_loop import turn_until
from support.tiny_dataset import blobs


@pytest.fixture(scope="session")
def app():
    from qtpy.QtWidgets import QApplication

    return QApplication.instance() or QApplication([])


@pytest.fixture(scope="session")
def orchestrator(tmp_path_factory):
    with Orchestrator(tmp_path_factory.mktemp("orchestrator")) as running:
        running.healthy("unet")
        yield running


@pytest.fixture
def viewer(app):
    from napari.components import ViewerModel

    return ViewerModel()


@pytest.fixture
def notices(monkeypatch):
    """Sentences that napari would show."""
    from napari.utils.notifications import notification_manager

    found = []
    monkeypatch.setattr(notification_manager, "dispatch", lambda notification: found.append(notification.message))
    return found


@pytest.fixture
def widget(viewer, orchestrator, notices):
    from cellsparse_napari.widget import TrainWidget

    made = TrainWidget(viewer)
    made.model.address.setText(orchestrator.address)
    made.model.backend.setCurrentIndex(made.model.backend.findData("unet"))
    yield made
    if made.busy:
        made.cancel_work()
    turn_until(lambda: not made.busy)
    made.close()


@pytest.fixture
def drawn(viewer, widget):
    """An image with two cells and some background drawn, chosen in the widget."""
    image, label = blobs()
    viewer.add_image(image, name="field", scale=(0.5, 0.25), translate=(10, 20))
    widget.drawing.new_cells.click()
    cells = widget.drawing.cells.layer()
    cells.data = np.where(np.isin(label, (1, 2)), label, 0)
    return cells


@pytest.fixture
def silent():
    """A server that takes every call and answers none."""
    asked, over = threading.Event(), threading.Event()

    class Silent(grpc.GenericRpcHandler):
        def service(self, details):
            def wait(requests, context):
                asked.set()
                over.wait(PATIENCE)
                return iter(())

            return grpc.stream_stream_rpc_method_handler(wait)

    server = grpc.server(ThreadPoolExecutor(8), handlers=[Silent()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield SimpleNamespace(address=f"127.0.0.1:{port}", asked=asked)
    over.set()
    server.stop(0).wait(PATIENCE)
