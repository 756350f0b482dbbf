"""The backends that are installed, and what they declare of themselves."""

import importlib.metadata

import pytest
from support.paths import ROOT

from cellsparse_orchestrator.settings import TRAINER_GROUP, installed_trainers
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.contract import GROUP, find_backend, installed_backends

BACKENDS = [field.name for field in trainer_pb2.TrainingSettings.DESCRIPTOR.oneofs_by_name["backend"].fields]


def test_every_backend_of_the_protos_is_installed():
    assert sorted(BACKENDS) == list(installed_backends())


def test_the_orchestrator_finds_the_same_backends():
    assert TRAINER_GROUP == GROUP
    assert installed_trainers() == {name: spec.package for name, spec in installed_backends().items()}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_spec_names_its_package(name):
    spec = installed_backends()[name]
    assert spec.name == name
    assert find_backend(spec.package) is spec
    assert importlib.metadata.distribution(spec.package).name == spec.package.replace("_", "-")


@pytest.mark.parametrize("name", BACKENDS)
def test_a_light_part_resolves_settings_and_reads_them_again(name):
    light = installed_backends()[name].light()
    settings = trainer_pb2.TrainingSettings()
    getattr(settings, name).SetInParent()
    config = light.resolve(settings, 5)
    assert light.Config.from_json(config.to_json()) == config
    assert light.adopt is not None


def test_every_default_port_is_another_one():
    ports = {spec.default_port for spec in installed_backends().values()}
    assert len(ports) == len(BACKENDS)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_chart_and_an_image_serve_a_backend(name):
    assert f"- backend: {name}\n" in (ROOT / "helm" / "cellsparse" / "values.yaml").read_text()
    assert (
        f"CELLSPARSE_PORT={installed_backends()[name].default_port}"
        in (ROOT / "services" / f"trainer_{name}" / "Dockerfile").read_text()
    )
