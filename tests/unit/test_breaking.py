"""The comparison of protos with the last release, on repositories made for it."""

import subprocess
from pathlib import Path

import pytest
from supply.breaking import compare, judge, last_release
from support.paths import ROOT

BUF = str(ROOT / ".venv" / "bin" / "buf")
PROTO = 'syntax = "proto3";\npackage a.v1;\nmessage M {\n  %s x = 1;\n}\n'


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for text in ("## [Unreleased]\n", "## [Unreleased]\n\n## [0.1.0]\n", "## [Unreleased]\n- more\n\n## [0.1.0]\n"):
        (folder / "CHANGELOG.md").write_text(text)
        git(folder, "add", "CHANGELOG.md")
        git(folder, "commit", "--quiet", "--message", "a")
    return folder


def test_the_last_release_is_the_newest_tag_or_what_the_changelog_says(repository):
    assert last_release(repository) == ("0.1.0", git(repository, "rev-parse", "HEAD~1"))
    for tag in ("v0.9.0", "v0.10.0"):
        git(repository, "tag", tag)
    assert last_release(repository) == ("v0.10.0", git(repository, "rev-parse", "HEAD"))


def test_without_history_nothing_is_compared(repository, tmp_path):
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{repository}", "shallow")
    assert last_release(tmp_path / "shallow") is None
    assert last_release(tmp_path) is None


@pytest.mark.parametrize(("kind", "breaks"), [("int32", 0), ("string", 1)])
def test_a_field_of_another_type_is_a_break(tmp_path, kind, breaks):
    for folder, now in (("before", "int32"), ("now", kind)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.proto").write_text(PROTO % now)
        (tmp_path / folder / "buf.yaml").write_text("version: v2\nbreaking:\n  use: [WIRE_JSON]\n")
    found = compare(BUF, tmp_path / "now", tmp_path / "before")
    assert len(found) == breaks
    assert len(judge(found, {}, "0.1.0")) == breaks
    meant = {"since": "0.1.0", "breaks": [{"file": "a.proto", "message": 'Field "1"', "reason": "Meant."}]}
    assert len(judge(found, meant, "0.1.0")) == 1 - breaks  # a list of what breaks nothing is a fault, too
    assert "empty it" in judge(found, meant, "0.2.0")[0]
