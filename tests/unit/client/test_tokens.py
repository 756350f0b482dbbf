"""The token of a file: read, or refused with a sentence that never quotes it."""

import os

import pytest

from cellsparse.errors import InvalidArgument
from cellsparse.tokens import read_token


def test_a_token_is_read_without_blanks_around_it(tmp_path):
    file = tmp_path / "token"
    file.write_text(" cellsparse_abc-1=\n")
    assert read_token(file) == "cellsparse_abc-1="


def test_a_pipe_that_nobody_writes_to_is_refused_before_it_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidArgument, match=r"pipe cannot be read: it is a pipe, not a file\."):
        read_token(tmp_path / "pipe")


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe"])
def test_what_is_no_token_is_refused_and_not_quoted(tmp_path, content):
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(InvalidArgument) as refused:
        read_token(file)
    assert str(file) in refused.value.message
    assert "two words" not in refused.value.message


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidArgument, match=r"token's file .*missing cannot be read: No such file or directory"):
        read_token(tmp_path / "missing")
