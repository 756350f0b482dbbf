"""The whole stack as its users start it: `cellsparse up` in a home folder of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.browser import Rest, Visit, chromium
from support.gateway import Gateway
from support.limits import LONG_PATIENCE
from support.orchestrator import Orchestrator

from cellsparse_common.imaging.images import encode_tiff

COMMAND = [sys.executable, "-m", "cellsparse"]
UNET = "unet=cellsparse_unet"
TINY = ["--set", "steps=2", "--set", "crop_size=32", "--set", "batch_size=2", "--set", "device=cpu"]


@dataclass(frozen=True)
class Stack:
    """A running stack and the environment that reaches it."""

    home: Path
    environment: dict[str, str]

    def run(self, *arguments: str, code: int = 0, timeout: float = LONG_PATIENCE) -> "subprocess.CompletedProcess[str]":
        """Run one command and check its exit code."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str) -> dict:
        """Run one command with --json and return its one document."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def start(self, arguments: Sequence[str]) -> "subprocess.Popen[str]":
        """Start a command and leave it running."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A test run in the background of a shell ignores SIGINT, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )


@pytest.fixture(scope="module")
def stack(tmp_path_factory) -> Iterator[Stack]:
    """A stack that is up, and down again afterwards."""
    home = tmp_path_factory.mktemp("stack") / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CELLSPARSE_")}
    running = Stack(home, {**environment, "CELLSPARSE_HOME": str(home), "OMP_NUM_THREADS": "1"})
    try:
        running.run("up")
        yield running
    finally:
        running.run("down")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Five small images of bright discs on a dark, noisy background, with their labels."""
    root = tmp_path_factory.mktemp("data")
    y, x = np.mgrid[:96, :96]
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for index in range(5):
        random = np.random.default_rng(index)
        label = np.zeros((96, 96), np.uint16)
        for cell, (cy, cx) in enumerate(((a, b) for a in (16, 48, 80) for b in (16, 48, 80)), start=1):
            label[(y - cy) ** 2 + (x - cx) ** 2 < random.integers(49, 100)] = cell
        image = 20 + 10 * label + 40 * (label > 0) + random.integers(0, 15, label.shape)
        (root / "images" / f"field-{index}.tif").write_bytes(encode_tiff(image.astype(np.uint8)))
        (root / "masks" / f"field-{index}.tif").write_bytes(encode_tiff(label))
    return root


@dataclass(frozen=True)
class Web:
    """A gateway in front of an orchestrator with the U-Net's trainer, which trains fastest on a CPU."""

    home: Path
    url: str
    rest: Rest


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Iterator[Web]:
    """A page that is served, until the end of the module's tests."""
    home = tmp_path_factory.mktemp("web") / "home"
    with Orchestrator(home, CELLSPARSE_TRAINER_MODULES=UNET, OMP_NUM_THREADS="1"), Gateway(home) as gateway:
        yield Web(home, gateway.url, Rest(gateway.api))


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests."""
    with chromium() as started:
        yield started


@pytest.fixture
def visit(browser) -> Iterator[Visit]:
    """A window of its own, which may reach loopback only and whose scripts make no errors."""
    made = Visit(browser)
    yield made
    made.tell()
    made.context.close()
    assert not made.beyond, "the page asked for what is not on this machine"
    assert not made.errors
