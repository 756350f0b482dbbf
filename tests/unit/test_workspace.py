"""Lists of packages that tools cannot derive are complete, and those that they can derive are not written down."""

import tomllib

import pytest
from support.paths import ROOT

ROOT_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = ROOT_PROJECT["tool"]["importlinter"]["contracts"]
PACKAGES = {
    init.parent.name: init.parents[1].name
    for init in (ROOT / "services").glob("*/cellsparse*/__init__.py")
    if init.parent.name != "cellsparse_proto"
}
TRAINERS = sorted(package for package, folder in PACKAGES.items() if folder.startswith("trainer_"))


def contract(name):
    (found,) = [contract for contract in CONTRACTS if name in contract["name"]]
    return found


def test_import_linter_looks_at_every_package():
    assert set(ROOT_PROJECT["tool"]["importlinter"]["root_packages"]) == {*PACKAGES, "cellsparse_proto"}


def test_all_trainers_stand_side_by_side_on_the_top_layer():
    top = contract("stand on trainer")["layers"][0]
    assert sorted(top.split(" | ")) == TRAINERS


def test_only_the_trainers_and_torch_may_know_a_framework():
    sources = contract("know a framework")["source_modules"]
    assert set(sources) == set(PACKAGES) - {*TRAINERS, "cellsparse_torch"}


def test_no_trainer_is_left_out_of_the_rules_on_frameworks():
    listed = [source for one in CONTRACTS if one["type"] == "forbidden" for source in one["source_modules"]]
    assert set(TRAINERS) <= set(listed)


@pytest.mark.parametrize("package", TRAINERS)
def test_a_trainer_is_found_by_its_entry_point(package):
    project = tomllib.loads((ROOT / "services" / PACKAGES[package] / "pyproject.toml").read_text())["project"]
    backend = PACKAGES[package].removeprefix("trainer_")
    assert project["entry-points"]["cellsparse.trainers"] == {backend: f"{package}:BACKEND"}
    assert project["scripts"] == {f"cellsparse-{backend}": f"{package}.__main__:main"}
