"""From settings to a store, or one sentence about what is wrong with them."""

from pathlib import Path

import pytest

from cellsparse_common.config.settings import StoreSettings, load
from cellsparse_common.errors import InvalidArgument
from cellsparse_common.storage import FolderStore, open_store
from cellsparse_common.storage.s3 import S3Store


def settings(url: str, **values: object) -> StoreSettings:
    return load(StoreSettings, store_url=url, **values)


@pytest.mark.parametrize("url", ["file:///data/store", "file:///data/two%20words"])
def test_file_urls_open_folders(url: str) -> None:
    store = open_store(settings(url))
    assert isinstance(store, FolderStore)
    assert store.url == url


def test_a_store_is_where_its_url_says(tmp_path: Path) -> None:
    folder = tmp_path / "two words, 100% #1"
    open_store(settings(folder.as_uri())).put("a", b"1")
    assert (folder / "a").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("url", "shown"),
    [("s3://bucket", "s3://bucket"), ("s3://bucket/", "s3://bucket"), ("s3://bucket/a/b/", "s3://bucket/a/b")],
)
def test_s3_urls_open_buckets(url: str, shown: str) -> None:
    store = open_store(settings(url, s3_access_key="key", s3_secret_key="hunter2"))
    assert isinstance(store, S3Store)
    assert store.url == shown
    assert "hunter2" not in repr(vars(store))


@pytest.mark.parametrize(
    "url",
    [
        "", "/data", "data", "file://data", "file:data", "file://host/data", "file:///a/../b", "file:///a?b", "file:///a#b",
        "http://host/bucket", "s3://", "s3:///prefix", "s3:bucket", "s3://bucket:80/a", "s3://bucket/a/../b", "s3://bucket/.hidden",
    ],
)  # fmt: skip
def test_other_urls_are_rejected(url: str) -> None:
    with pytest.raises(InvalidArgument):
        open_store(settings(url))


def test_passwords_in_urls_are_rejected_and_not_shown() -> None:
    with pytest.raises(InvalidArgument, match="user or password") as caught:
        open_store(settings("s3://key:hunter2@bucket/prefix"))
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("endpoint", ["http://host:9000", "host:9000/path", "host:port", "host:99999", " "])
def test_bad_endpoints_are_named(endpoint: str) -> None:
    with pytest.raises(InvalidArgument, match=r"s3_endpoint is .*allowed: host or host:port"):
        open_store(settings("s3://bucket", s3_endpoint=endpoint))


def test_a_ca_bundle_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for bundle in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        with pytest.raises(InvalidArgument, match=f"s3_ca_bundle {bundle} cannot be used"):
            open_store(settings("s3://bucket", s3_ca_bundle=bundle))
