"""Does what docs/adding-a-backend.md says, in a copy of the tree, and trains the new backend.

Neither orchestrator nor launcher nor client is touched: they find the backend by its entry point and in the protos.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.helm import find_helm
from support.paths import ROOT, TESTS
from support.server_process import ServerProcess

PAGE = ROOT / "docs" / "adding-a-backend.md"
BLOCK = re.compile(
    r"^(Create|Append to|Insert into) `([^`]+)`(?: after `([^`]+)`)?:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Copy:
    """A copy of the tree with the new backend in it."""

    root: Path
    environment: dict[str, str]

    def run(self, program: str | Path, *arguments: str) -> str:
        done = subprocess.run(
            [program, *arguments],
            cwd=self.root,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def follow_the_page(root: Path) -> None:
    """Make the changes that the page shows, in its order."""
    steps = BLOCK.findall(PAGE.read_text())
    assert len(steps) == 10, "the page shows another number of files"
    for what, name, anchor, text in steps:
        path = root / name
        if what == "Create":
            assert not path.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            continue
        before = path.read_text()
        if what == "Append to":
            path.write_text(f"{before}\n{text}")
            continue
        (line,) = [line for line in before.splitlines(keepends=True) if line.strip() == anchor]
        path.write_text(before.replace(line, line + text))


def install(package: Path, folder: Path) -> None:
    """Write what an installer would leave behind: name, version and entry points."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    root = folder / "cellsparse"
    for name in ("proto", "services", "helm"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    follow_the_page(root)
    subprocess.run([sys.executable, str(root / "services/common/build_stubs.py")], check=True, timeout=120)
    install(root / "services/trainer_threshold", folder / "installed")
    packages = [str(path) for path in sorted((root / "services").iterdir())]
    path = os.pathsep.join([*packages, str(folder / "installed"), str(TESTS)])
    return Copy(root, {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"})


def test_the_new_backend_trains_and_predicts(copy, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {**copy.environment, "CELLSPARSE_HOME": str(home)}
    with ServerProcess(["-m", "cellsparse_orchestrator"], home / "store", home, **environment) as orchestrator:
        printed = copy.run(sys.executable, "-m", "support.train_a_backend", orchestrator.address, "threshold")
    found = json.loads(printed)
    assert found["backend"] == "threshold"
    assert found["score"] > 0.8
    assert found["cells"] >= 4
    assert found["overlap"] > 0.9
    assert found["background"] < 0.1


def test_command_line_and_documentation_know_its_settings(copy):
    assert "threshold" in copy.run(sys.executable, "-m", "cellsparse", "train", "--help")
    tables = copy.run(sys.executable, "-m", "cellsparse_trainer.defaults")
    assert re.search(r"^\| `smoothing` \| 1.0 \| 0.0 \|", tables, re.MULTILINE)


def test_the_page_keeps_the_contract(copy):
    """Types and style, as `make lint` checks them."""
    package = str(copy.root / "services/trainer_threshold")
    shutil.copy(ROOT / "pyproject.toml", copy.root / "pyproject.toml")
    tools = Path(sys.executable).parent
    copy.run(tools / "ruff", "check", "--no-cache", package)
    copy.run(tools / "ruff", "format", "--no-cache", "--check", package)
    copy.run(tools / "mypy", f"--cache-dir={copy.root.parent / 'mypy'}", package)


def test_the_chart_serves_it(copy):
    """Skipped where helm is not built."""
    objects = yaml.safe_load_all(copy.run(find_helm(), "template", "lab", "helm/cellsparse"))
    deployments = [found["metadata"]["name"] for found in objects if found and found["kind"] == "Deployment"]
    assert any("threshold" in name for name in deployments)
