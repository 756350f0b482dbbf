"""The administrator's token in the home folder."""

import stat

import pytest

from cellsparse_common.errors import StorageError
from cellsparse_orchestrator.home import home_token


@pytest.mark.parametrize("left", [None, "", "\n"])
def test_it_is_made_once_for_its_owner_alone(tmp_path, left):
    path = tmp_path / "admin-token"
    if left is not None:  # by one that was killed
        path.write_text(left)
    (tmp_path / ".admin-token.new").write_text("half")
    made = iter(["first", "second"])
    assert [home_token(tmp_path, lambda: next(made)) for _ in range(2)] == ["first", "first"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["admin-token"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(StorageError, match=r"Cannot use .*admin-token"):
        home_token(tmp_path / "missing", lambda: "token")
