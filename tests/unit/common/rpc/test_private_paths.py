"""Paths of the server's machine in sentences for clients."""

from pathlib import Path

import pytest

from cellsparse_common.config.settings import ServerSettings
from cellsparse_common.rpc.private_paths import PrivatePaths, private_paths

HOME = "/home/ada/.cellsparse"
PATHS = PrivatePaths({HOME: "CELLSPARSE_HOME", f"{HOME}/store": "the store", "/tmp/": "TMPDIR"})


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        (f"Cannot write {HOME}/uploads/tmp1: File exists.", "Cannot write CELLSPARSE_HOME/uploads/tmp1: File exists."),
        (f"Cannot read file://{HOME}/store.", "Cannot read the store."),
        (f"In {HOME}/store/blobs and '{HOME}'", "In the store/blobs and 'CELLSPARSE_HOME'"),
        ("Cannot write /tmp/x: No space left.", "Cannot write TMPDIR/x: No space left."),
        (f"{HOME}-old/a and /tmpfs/b are others", f"{HOME}-old/a and /tmpfs/b are others"),
        ("There is no dataset 'a/b'.", "There is no dataset 'a/b'."),
        ("", ""),
    ],
)
def test_a_sentence_names_settings_in_place_of_paths(sentence, shown):
    assert PATHS.hide(sentence) == shown


def test_the_paths_are_those_of_the_settings(tmp_path):
    settings = ServerSettings(
        port=0, store_url=(tmp_path / "a b").as_uri(), tls_cert=tmp_path / "tls.crt", tls_key=tmp_path / "k"
    )
    hide = private_paths(settings).hide
    assert hide(f"{tmp_path}/a b/c is gone") == "the store/c is gone"
    assert hide(f"{tmp_path}/tls.crt: no") == "CELLSPARSE_TLS_CERT: no"
    assert str(tmp_path) not in hide(f"Cannot open {Path('/tmp')}/y, {tmp_path}/tls.crt.")


def test_nothing_is_hidden_where_nothing_is_private():
    assert PrivatePaths({"relative": "x", "/": "root"}).hide("/etc/relative") == "/etc/relative"
