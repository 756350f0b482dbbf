"""What a process loads is what its image must hold."""

import subprocess
import sys

import pytest
from support.limits import PATIENCE

FRAMEWORKS = ("torch", "tensorflow", "tf_keras", "stardist", "cellpose", "csbdeep")
SERVERS = [
    "cellsparse_common.rpc.server",
    "cellsparse_sparsifier.__main__",
    "cellsparse_orchestrator.__main__",
    "cellsparse_trainer.main",
    "cellsparse_trainer.service",
    "cellsparse_cellpose.__main__",
    "cellsparse_cellpose.light",
    "cellsparse_cellpose_sam.__main__",
    "cellsparse_cellpose_sam.light",
    "cellsparse_stardist.__main__",
    "cellsparse_stardist.light",
    "cellsparse_unet.__main__",
    "cellsparse_unet.light",
    "cellsparse",
    "cellsparse.__main__",
]


def loaded(module: str, names: tuple[str, ...]) -> str:
    code = f"import sys, {module}; print(*[name for name in {names} if name in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    ).stdout


@pytest.mark.parametrize("module", SERVERS)
def test_a_server_process_loads_no_framework(module):
    assert loaded(module, FRAMEWORKS).strip() == ""


SERVER_SIDE = ("minio", "urllib3", "pydantic", "prometheus_client", "scipy", "PIL", "imagecodecs", "roifile")
FOR_FEW_COMMANDS = ("numpy", "tifffile", "optuna", "sqlalchemy", "matplotlib", "contourpy")


@pytest.mark.parametrize("module", ["cellsparse", "cellsparse.search", "cellsparse.cli.app"])
def test_the_client_loads_nothing_of_a_server_and_heavy_libraries_only_when_they_are_needed(module):
    assert loaded(module, (*FRAMEWORKS, *SERVER_SIDE, *FOR_FEW_COMMANDS)).strip() == ""


def test_the_command_line_is_built_without_heavy_libraries():
    code = (
        "import contextlib, io, sys; from cellsparse.cli.app import run\n"
        "with contextlib.redirect_stdout(io.StringIO()): run(['predict', '--help'])\n"
        f"print(*[name for name in {(*SERVER_SIDE, *FOR_FEW_COMMANDS)} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.strip() == ""


def test_the_sdk_reads_and_writes_arrays_without_what_only_servers_install():
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({SERVER_SIDE}))\n"  # importing these fails
        "import cellsparse, numpy as np; from cellsparse import arrays\n"
        "label = np.arange(20, dtype=np.int32).reshape(4, 5)\n"
        "assert (arrays.read_labels(arrays.label_file(label, 'a'), 20, stack=False)[0] == label).all()\n"
        "planes = np.ones((3, 4, 5), np.float32)\n"
        "assert arrays.read_image(arrays.image_file(planes, 'ZYX', 'image'), 60, stack=True).shape == (3, 4, 5)\n"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)


@pytest.mark.parametrize("module", ["cellsparse_common.imaging.images", "cellsparse_common.imaging.labels"])
def test_imaging_loads_no_server_and_no_store(module):
    assert loaded(module, ("minio", "pydantic", "prometheus_client")).strip() == ""


@pytest.mark.parametrize("module", ["cellsparse_common.storage", "cellsparse_common.storage.keys"])
def test_the_s3_client_is_loaded_by_the_first_s3_url(module):
    assert loaded(module, ("minio", "urllib3", "pydantic")).strip() == ""


@pytest.mark.parametrize(
    ("module", "others"),
    [
        ("cellsparse_cellpose.backend", ("tensorflow", "tf_keras", "stardist", "csbdeep")),
        ("cellsparse_unet.backend", ("tensorflow", "tf_keras", "stardist", "csbdeep", "cellpose")),
        ("cellsparse_stardist.backend", ("torch", "cellpose")),
    ],
)
def test_a_backend_loads_no_other_framework(module, others):
    assert loaded(module, others).strip() == ""


@pytest.mark.parametrize("backend", ["cellpose", "stardist", "unet"])
def test_importing_a_backend_seeds_no_global_generator(backend):
    code = (
        "import random, numpy as np; seeded = []; "
        "random.seed = lambda *given: seeded.append(given); np.random.seed = lambda *given: seeded.append(given); "
        f"import cellsparse_{backend}.backend; print(seeded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout.split()[-1] == "[]"
