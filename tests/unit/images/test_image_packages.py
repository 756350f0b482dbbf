"""What the lock puts into each image, and what `pip install cellsparse` brings: all that is imported, and no more."""

import ast
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from images.service_images import IMAGES, ROOT, TRAINERS, is_cuda, read_lock, required

LOCK = read_lock()
EVERY_IMAGE = pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.folder)
# What only a build of `common` imports; its pyproject.toml names both.
BUILD_ONLY = {"hatchling", "grpc_tools"}
CLIENT_EXTRAS = ("cluster", "demo", "plots", "search")
SERVER_SIDE = {
    "contourpy",
    "grpcio-health-checking",
    "grpcio-reflection",
    "imagecodecs",
    "matplotlib",
    "minio",
    "optuna",
    "pillow",
    "prometheus-client",
    "pydantic",
    "roifile",
    "scipy",
}


def imported(folder: Path) -> set[str]:
    """Top-level names that the sources of a folder import."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - set(sys.stdlib_module_names) - BUILD_ONLY


@EVERY_IMAGE
def test_no_framework_meets_another(image):
    assert required(LOCK, [image.package], image.extras) & image.never == set()


@EVERY_IMAGE
def test_an_image_holds_its_framework(image):
    assert image.framework <= required(LOCK, [image.package], image.extras)


@pytest.mark.parametrize(
    ("backend", "library"), [("cellpose", "13"), ("cellpose_sam", "13"), ("unet", "13"), ("stardist", "12")]
)
def test_a_trainer_brings_the_cuda_of_its_framework(backend, library):
    image = TRAINERS[backend]
    cuda = {name for name in required(LOCK, [image.package], image.extras) if is_cuda(name)}
    assert f"nvidia-cudnn-cu{library}" in cuda
    assert not any(name.endswith({"13": "-cu12", "12": "-cu13"}[library]) for name in cuda)


@EVERY_IMAGE
def test_a_service_starts_from_its_own_dependencies(image):
    held = required(LOCK, [image.package], image.extras)
    distributions = packages_distributions()
    for folder in image.own:
        for name in imported(ROOT / "services" / folder) - {"cellsparse_proto"} - image.left_out:
            owners = {owner.lower().replace("_", "-") for owner in distributions.get(name, [name])}
            assert owners & held, f"services/{folder} imports {name}, which no dependency of {image.package} brings"


def test_each_cellpose_brings_its_own_version():
    held = {name: required(LOCK, [TRAINERS[name].package], TRAINERS[name].extras) for name in TRAINERS}
    for package, owner in (("segment-anything", "cellpose_sam"), ("numba", "cellpose")):
        assert [name for name in ("cellpose", "cellpose_sam") if package in held[name]] == [owner]


def test_the_sdk_brings_nothing_that_only_servers_or_few_commands_need():
    assert required(LOCK, ["cellsparse"]) & SERVER_SIDE == set()


def test_every_import_of_the_client_is_brought_by_it_or_by_one_of_its_extras():
    held = required(LOCK, ["cellsparse"], CLIENT_EXTRAS)
    distributions = packages_distributions()
    for name in imported(ROOT / "services" / "client") - {"cellsparse_proto"}:
        owners = {owner.lower().replace("_", "-") for owner in distributions.get(name, [name])}
        assert owners & held, f"the client imports {name}, which neither it nor an extra brings"


def test_extras_and_what_they_need_are_followed():
    lock = {
        "package": [
            {
                "name": "a",
                "dependencies": [{"name": "b", "extra": ["x"]}],
                "optional-dependencies": {"gpu": [{"name": "d"}]},
            },
            {"name": "b", "optional-dependencies": {"x": [{"name": "c"}]}},
            {"name": "c", "dependencies": [{"name": "a"}]},
            {"name": "d"},
        ]
    }
    assert required(lock, ["a"]) == {"a", "b", "c"}
    assert required(lock, ["a"], ["gpu"]) == {"a", "b", "c", "d"}
    assert required(lock, ["d"]) == {"d"}
