"""Launchers of services that run whether or not anything trains."""

import pytest

from cellsparse_orchestrator.launchers.base import Service
from cellsparse_orchestrator.launchers.local import LocalLauncher
from cellsparse_orchestrator.launchers.static import static_launcher
from cellsparse_orchestrator.settings import OrchestratorSettings


@pytest.fixture(params=["local", "static"])
def launcher(request, tmp_path):
    if request.param == "static":
        return static_launcher({"unet": "127.0.0.1:1"}, "127.0.0.1:2")
    return LocalLauncher(OrchestratorSettings(home=tmp_path, trainer_modules="unet=absent_module"))


def test_every_attempt_gets_the_one_trainer_of_its_backend(launcher):
    assert sorted(service.name for service in launcher.services()) == ["sparsifier", "unet"]
    trainer = launcher.service("unet")
    assert launcher.ensure("unet", "run-1", 1) == launcher.find("unet", "run-2", 7) == trainer
    launcher.release("run-1", 1)
    assert launcher.keep_only(set, set)
    assert launcher.service("unet") == trainer


def test_a_backend_that_is_not_configured(launcher):
    assert launcher.service("other") is None
    missing = launcher.ensure("other", "run-1", 1)
    assert (missing.missing, missing.message) == (True, "No other trainer is configured.")


def test_a_service_is_replaced_as_a_whole_and_in_its_place(launcher):
    names = [service.name for service in launcher.services()]
    changed = Service(name=names[0], address="127.0.0.1:3", healthy=True)
    launcher._publish(changed)
    assert launcher.service(names[0]) is changed
    assert [service.name for service in launcher.services()] == names
