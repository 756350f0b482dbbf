import pytest

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import DeadlineExceeded, NotFound
from cellsparse_common.storage import open_store
from cellsparse_trainer.training.checkpoints import LATEST, Checkpoints
from cellsparse_trainer.training.newest import NewestCheckpoint


def test_the_newest_checkpoint_is_kept_here_alone(tmp_path):
    store = open_store(StoreSettings(store_url=f"file://{tmp_path}/store"))
    newest = NewestCheckpoint(store, tmp_path / "here")
    with pytest.raises(NotFound, match="Run run-1 has no checkpoint yet"), newest.fetch("run-1", 1):
        pass
    for run_id, step in (("run-1", 5), ("run-1", 10), ("run-2", 3)):
        checkpoints = Checkpoints(store, run_id, tmp_path / run_id, card={"backend": "unet"})
        checkpoints.write(step, None, {LATEST}, lambda folder: (folder / "state").write_text("x"))
        checkpoints.wait()
        with newest.fetch(run_id, 1) as (folder, found):
            assert found == step
            assert {path.name for path in folder.iterdir()} == {"state", "origin.json", "card.json"}
            assert list((tmp_path / "here").glob("*/*")) == [folder]
            with pytest.raises(DeadlineExceeded), newest.fetch(run_id, 0.01):
                pass
