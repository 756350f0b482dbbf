"""QuPath's three algorithms with their real trainers: some seconds of training each, cut short by the time allowed."""

import pytest
from support.gateway import Gateway
from support.limits import LONG_PATIENCE
from support.orchestrator import Orchestrator, until
from support.qupath import QuPath
from support.qupath_services import Services

from cellsparse_proto.v1 import common_pb2

MODULES = "cellpose=cellsparse_cellpose,stardist=cellsparse_stardist,unet=cellsparse_unet"
SECONDS = "4"
"""Far less than the preset takes on a CPU: the first training is cut."""


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    home = tmp_path_factory.mktemp("backends") / "home"
    qupath = QuPath(home.parent, size=128)
    with (
        Orchestrator(home, CELLSPARSE_TRAINER_MODULES=MODULES) as orchestrator,
        Gateway(home, CELLSPARSE_QUPATH_SECONDS=SECONDS) as gateway,
    ):
        yield Services(orchestrator, gateway, qupath)


@pytest.mark.parametrize(
    ("word", "backend", "steps"), [("elephant", "unet", 0), ("stardist", "stardist", 120), ("cellpose", "cellpose", 60)]
)
def test_train_infer_and_reset(services, word, backend, steps):
    """The U-Net trains as long as QuPath's constants mean; the others by numbers of their own, which is quicker."""
    until(lambda: services.orchestrator.service(backend).healthy, LONG_PATIENCE)
    url = services.url(word)
    trained = services.qupath.train(url, "grey8", steps=steps or 200)
    assert trained.status == 200, trained.text
    model = services.alias(backend).model_id
    # How far the U-Net gets depends on the machine, so it may find nothing; the others train a given number of steps.
    assert trained.json() or not steps
    services.check_outlines(trained.json(), model, "grey8")
    found = services.qupath.infer(url, "grey8")
    assert found.json() == trained.json()
    run, *cut = [run for run in services.runs() if run.backend == backend]
    assert run.id == model
    assert all(older.state == common_pb2.RUN_STATE_CANCELLED for older in cut)
    assert not steps or (run.settings.steps, cut) == (steps, [])
    assert services.qupath.reset(url).status == 200
    assert services.qupath.infer(url, "grey8").status == 409
    print(word, run.settings.steps, "steps after", len(cut), "cut;", len(trained.json()), "cells")
