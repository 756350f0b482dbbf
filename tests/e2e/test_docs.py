"""The snippets of the pages, run in their order on one real system: what a reader types works as it stands.

Two things differ from what the page says. Trainings do two steps on tiny crops: `--set steps=2` and the like are added
to commands that train, and `steps=` is replaced in Python. And commands run in the test's own process, where they need
not be loaded again for each line; `test_cli_journey.py` starts them as processes.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from support.pages import Block, blocks
from support.paths import ROOT

import cellsparse
from cellsparse import local_services
from cellsparse.cli.app import run
from cellsparse_common.imaging.images import encode_tiff

from .conftest import TINY

pytestmark = pytest.mark.timeout(900)
TRAINING = {("train",), ("study", "run"), ("search", "run")}
TINY_PYTHON = "steps=2, crop_size=32, batch_size=2, device='cpu'"
EXAMPLES = ROOT / "docs" / "examples"


@dataclass(frozen=True)
class Desk:
    """A reader's folder and the home folder of their system."""

    folder: Path
    home: Path


@pytest.fixture(scope="module")
def desk(tmp_path_factory, folder) -> Iterator[Desk]:
    """Images as the pages name them, and a system that is down afterwards, whatever happened."""
    root = tmp_path_factory.mktemp("docs")
    place = Desk(root / "desk", root / "home")
    shutil.copytree(folder, place.folder / "my-cells")
    (place.folder / "new").mkdir()
    shutil.copy(folder / "images" / "field-0.tif", place.folder / "new" / "field.tif")
    (place.folder / "docs").symlink_to(ROOT / "docs")
    _write_stacks(place.folder / "my-stacks")
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("CELLSPARSE_")]:
            patch.delenv(name)
        patch.setenv("CELLSPARSE_HOME", str(place.home))
        patch.setenv("CELLSPARSE_WARM_SECONDS", "300")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("MPLBACKEND", "agg")
        os.chdir(place.folder)
        try:
            yield place
        finally:
            os.chdir(before)
            local_services.down(place.home)


def _write_stacks(root: Path) -> None:
    z, y, x = np.mgrid[:16, :64, :64]
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for index in range(3):
        label = np.zeros(z.shape, np.uint8)
        for cell, (cy, cx) in enumerate(((16, 16), (16, 48), (48, 16), (48, 48)), start=1):
            label[((z - 8) / 5) ** 2 + ((y - cy) / 10) ** 2 + ((x - cx) / 10) ** 2 < 1] = cell
        noise = np.random.default_rng(index).integers(0, 15, label.shape)
        image = (20 + (label > 0) * (60 + 20 * label) + noise).astype(np.uint8)
        (root / "images" / f"stack-{index}.tif").write_bytes(encode_tiff(image, stack=True))
        (root / "masks" / f"stack-{index}.tif").write_bytes(encode_tiff(label, stack=True))


# The tutorial comes last: it ends with `cellsparse down`.
PAGES = [
    "README.md",
    *(f"docs/guides/{name}.md" for name in ("labels", "stacks", "studies", "searches")),
    "docs/tutorial.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_snippets_run(desk, page, capfd):
    found = [block for block in blocks(ROOT / page) if block.runs]
    assert found, f"{page} has no block that is marked to be run"
    for block in found:
        begun = time.monotonic()
        if block.language == "python":
            _run_python(page, block)
        else:
            for command in block.commands():
                _run_command(page, block, command)
        with capfd.disabled():
            print(f"{page}:{block.line} took {time.monotonic() - begun:.1f} s")


def _run_python(page: str, block: Block) -> None:
    text = re.sub(r"\bsteps=\d+", TINY_PYTHON, block.text)
    code = compile("\n" * (block.line - 1) + text, page, "exec")
    exec(code, {"__name__": "__page__"})  # noqa: S102 - the project's own pages


def _run_command(page: str, block: Block, command: str) -> None:
    words = [name for word in shlex.split(command, comments=True) for name in _expanded(word)]
    if words[0] != "cellsparse":
        words[0] = sys.executable if words[0] == "python" else words[0]
        subprocess.run(words, check=True, timeout=120)
        return
    arguments = words[1:]
    if any(tuple(arguments[: len(name)]) == name for name in TRAINING):
        arguments += TINY
    code = run(arguments)
    assert code == 0, f"{page}:{block.line}: `{command}` ended with {code}"


def _expanded(word: str) -> list[str]:
    """Return the files that a pattern names, as a shell does."""
    return sorted(str(path) for path in Path().glob(word)) if "*" in word else [word]


def test_the_notebook_runs(desk):
    run(["up"])
    notebook = nbformat.read(EXAMPLES / "main_job.ipynb", as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    for cell in notebook.cells:
        cell.source = re.sub(r"^steps = \d+", "steps = 2", cell.source, flags=re.MULTILINE)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(desk.folder)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "5 tiles with 140 cells" in said
    assert "IoU 0.5: F1" in said
    assert (desk.folder / "model.zip").stat().st_size > 0


def test_a_client_without_stubs_learns_the_contract_by_reflection(desk):
    run(["up"])
    record = local_services.running(desk.home)
    assert record is not None
    script = EXAMPLES / "reflection_client.py"
    assert "cellsparse" not in re.findall(r"^(?:import|from) (\w+)", script.read_text(), re.MULTILINE)
    done = subprocess.run(
        [sys.executable, str(script), record.address], capture_output=True, text=True, timeout=120, check=True
    )
    first, *models = done.stdout.splitlines()
    assert {"orchestrator", "sparsifier", "unet"} <= set(first.removeprefix("services: ").split(", "))
    with cellsparse.Client(record.address) as client:
        assert [line.split()[0] for line in models] == [model.id for model in client.models()]
