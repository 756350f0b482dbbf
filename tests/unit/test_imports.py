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
    "cellsparse_cellpose.config",
    "cellsparse_stardist.__main__",
    "cellsparse_stardist.config",
    "cellsparse_unet.__main__",
    "cellsparse_unet.config",
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


def test_the_command_line_loads_what_few_commands_need_only_for_them():
    assert loaded("cellsparse.cli.app", ("optuna", "sqlalchemy", "matplotlib")).strip() == ""


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
