"""Which Python environment a trainer runs in."""

import sys

import pytest

from cellsparse_orchestrator.launchers import environments
from cellsparse_orchestrator.launchers.environments import find_python, how_to_get, is_met, own_environment
from cellsparse_orchestrator.launchers.local import LocalLauncher
from cellsparse_orchestrator.settings import OrchestratorSettings


@pytest.fixture
def here(monkeypatch, tmp_path):
    """An environment of this process in a folder of its own, in which no framework of an extra is."""
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(environments, "is_met", lambda requirements: "framework" not in " ".join(requirements))
    return tmp_path


def make_own(folder):
    python = folder / ".venv-cellpose-sam" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    return python


def test_a_trainer_whose_framework_is_here_runs_here(here):
    assert find_python("unet", {}) == sys.executable
    assert find_python("not-a-package-at-all", {}) == sys.executable


def test_another_has_the_environment_beside_this_one(here):
    assert find_python("cellpose_sam", {}) is None
    python = make_own(here)
    assert find_python("cellpose_sam", {}) == str(python)
    assert own_environment("cellpose_sam") == here / ".venv-cellpose-sam"


def test_a_given_interpreter_wins(here):
    make_own(here)
    assert find_python("cellpose_sam", {"cellpose_sam": "/opt/other/python"}) == "/opt/other/python"


@pytest.mark.parametrize(
    ("requirements", "met"),
    [
        ([], True),
        (["cellsparse-trainer"], True),
        (["pytest==0.0.1; extra == 'framework'"], False),
        ([f"pytest=={pytest.__version__}; extra == 'framework'"], True),
        ([f"pytest=={pytest.__version__} ; extra == 'framework'", "no-such-package==1; extra == 'framework'"], False),
        (["no-such-package==1; extra == 'gpu'"], True),
    ],
)
def test_an_extra_is_met_where_its_pinned_packages_are(requirements, met):
    assert is_met(requirements) == met


def test_a_trainer_without_its_environment_is_no_service_and_says_how_to_get_it(here):
    modules = "unet=cellsparse_unet,cellpose_sam=cellsparse_cellpose_sam"
    launcher = LocalLauncher(OrchestratorSettings(home=here, trainer_modules=modules))
    assert [service.name for service in launcher.services()] == ["sparsifier", "unet"]
    (absent,) = launcher.absent()
    assert (absent.name, absent.missing, absent.message) == ("cellpose_sam", True, how_to_get("cellpose_sam"))
    assert "`make cellpose-sam`" in absent.message
    assert launcher.service("cellpose_sam") == launcher.ensure("cellpose_sam", "run-1", 1) == absent


def test_with_its_environment_it_is_started_from_there(here):
    python = make_own(here)
    launcher = LocalLauncher(OrchestratorSettings(home=here, trainer_modules="cellpose_sam=cellsparse_cellpose_sam"))
    assert launcher.absent() == []
    commands = {supervisor._command.name: supervisor._command.python for supervisor in launcher._supervisors}
    assert commands == {"sparsifier": sys.executable, "cellpose_sam": str(python)}
