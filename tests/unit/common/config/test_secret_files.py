"""Settings from files: read by name, wrong folders and missing files said clearly, contents never shown."""

import os
from pathlib import Path

import pytest

from cellsparse_common.config.settings import ServerSettings, StoreSettings, load
from cellsparse_common.errors import InvalidArgument

SECRET = "hunter2-hunter2"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in list(os.environ):
        if name.startswith("CELLSPARSE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CELLSPARSE_SECRETS_DIR", str(tmp_path))
    return tmp_path


def test_files_are_settings_by_name(folder: Path) -> None:
    (folder / "cellsparse_s3_access_key").write_text("key\n")
    (folder / "cellsparse_s3_secret_key").write_text(f"{SECRET}\n")
    (folder / "cellsparse_database_url").write_text("of another service")
    settings = load(ServerSettings)
    assert settings.s3_access_key == "key"
    assert settings.s3_secret_key.get_secret_value() == SECRET
    assert SECRET not in repr(settings)


def test_files_as_kubernetes_mounts_them(folder: Path) -> None:
    (folder / "..2026_11_23").mkdir()
    (folder / "..data").symlink_to("..2026_11_23")
    for name in ("cellsparse_s3_access_key", "cellsparse_s3_secret_key"):
        (folder / "..data" / name).write_text(SECRET)
        (folder / name).symlink_to(f"..data/{name}")
    assert load(StoreSettings).s3_secret_key.get_secret_value() == SECRET


def test_a_variable_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cellsparse_s3_region").write_text("from-file")
    assert load(StoreSettings).s3_region == "from-file"
    monkeypatch.setenv("CELLSPARSE_S3_REGION", "from-variable")
    assert load(StoreSettings).s3_region == "from-variable"


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ("cellsparse_s3_access_key", "cellsparse_s3_secret_key"),
        ("cellsparse_s3_secret_key", "cellsparse_s3_access_key"),
    ],
)
def test_a_missing_file_is_named(folder: Path, there: str, missing: str) -> None:
    (folder / there).write_text(SECRET)
    with pytest.raises(InvalidArgument, match=f"{folder} has no file {missing}") as caught:
        load(StoreSettings)
    assert SECRET not in str(caught.value)


def test_a_missing_folder_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLSPARSE_SECRETS_DIR", str(folder / "no" / "such"))
    with pytest.raises(InvalidArgument, match=r"CELLSPARSE_SECRETS_DIR is '.*no/such'.*No such file"):
        load(StoreSettings)


def test_a_folder_of_other_names_is_refused(folder: Path) -> None:
    (folder / "accessKey").write_text(SECRET)
    with pytest.raises(InvalidArgument, match="such as cellsparse_s3_secret_key; it holds: accessKey") as caught:
        load(StoreSettings)
    assert SECRET not in str(caught.value)


def test_a_file_that_is_no_text_is_named_and_not_shown(folder: Path) -> None:
    (folder / "cellsparse_s3_secret_key").write_bytes(SECRET.encode() + b"\xff\xfe")
    with pytest.raises(InvalidArgument, match=r"s3_secret_key in the folder .* it is not text") as caught:
        load(StoreSettings)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
