import os

import pytest

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import NotFound
from cellsparse_common.storage import open_store
from cellsparse_trainer.training.checkpoints import LATEST, Checkpoints
from cellsparse_trainer.training.newest import NewestCheckpoint


def test_the_newest_checkpoint_is_kept_here_alone(tmp_path):
    store = open_store(StoreSettings(store_url=f"file://{tmp_path}/store"))
    mine, gone, alive = (tmp_path / "here" / str(pid) for pid in (os.getpid(), 2**22 + 1, os.getppid()))
    of_an_earlier_version = tmp_path / "here" / "run-0"
    for folder in (gone, alive, of_an_earlier_version):
        (folder / "run-0").mkdir(parents=True)
    newest = NewestCheckpoint(store, tmp_path / "here")
    assert sorted((tmp_path / "here").iterdir()) == sorted([mine, alive])
    with pytest.raises(NotFound, match="Run run-1 has no checkpoint yet"):
        newest.fetch("run-1")
    for run_id, step in (("run-1", 5), ("run-1", 10), ("run-2", 3)):
        checkpoints = Checkpoints(store, run_id, tmp_path / run_id, card={"backend": "unet"})
        checkpoints.write(step, None, {LATEST}, lambda folder: (folder / "state").write_text("x"))
        checkpoints.wait()
        folder, found = newest.fetch(run_id)
        assert found == step
        assert {path.name for path in folder.iterdir()} == {"state", "origin.json", "card.json"}
        assert list(mine.glob("*/*")) == [folder]
