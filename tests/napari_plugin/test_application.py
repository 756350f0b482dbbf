"""The plugin in the whole of napari, on a screen in memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "napari.qt", reason="napari or its Qt is not installed here; see `make test-napari`", exc_type=ImportError
)

from support.limits import LONG_PATIENCE
from support.paths import ROOT
from support.screen import XVFB, screen
from support.tiny_dataset import blobs

from cellsparse_proto.v1 import common_pb2

needs_screen = pytest.mark.skipif(
    XVFB is None, reason="Xvfb is not installed; tests/napari_plugin/debian.sh installs it as root"
)


@needs_screen
def test_napari_opens_the_plugin_trains_and_shows_the_cells(orchestrator, tmp_path):
    image, label = blobs(256)
    arrays = {"image": image, "cells": np.where(label < 3, label, 0), "background": np.zeros_like(label)}
    arrays["background"][:8] = 1
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    picture = tmp_path / "window.png"
    files = [str(tmp_path / f"{name}.npy") for name in arrays]
    program = Path(__file__).with_name("application.py")
    with screen() as display:
        done = subprocess.run(
            [sys.executable, program, orchestrator.address, *files, "unet", "20", picture],
            env={**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "xcb", "PYTHONPATH": str(ROOT / "tests")},
            capture_output=True,
            text=True,
            timeout=LONG_PATIENCE,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert picture.stat().st_size > 10_000


def test_closing_napari_ends_the_process_and_not_the_training(orchestrator):
    import cellsparse

    with cellsparse.Client(orchestrator.address) as client:
        before = {run.id for run in client.runs()}
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("closing.py"), orchestrator.address],
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
            capture_output=True,
            text=True,
            timeout=LONG_PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "left while busy: True" in done.stdout
        (run,) = [run for run in client.runs() if run.id not in before]
        assert client.run(run.id).state == common_pb2.RUN_STATE_RUNNING
        client.cancel(run.id)
