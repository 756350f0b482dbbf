"""Part of `make lint`: whether clients of the last release still understand the protos (`buf breaking`).

The last release is the newest tag vX.Y.Z, or, where none is tagged, the commit that put the newest version into
CHANGELOG.md. In a clone without that commit nothing can be compared; then it says so and passes. Before 1.0.0 a break
may be meant: breaking.toml lists those, each with a reason.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEANT = Path(__file__).with_name("breaking.toml")
_SECONDS = 300
_RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+)\]", re.MULTILINE)


def main() -> None:
    """Compare; exit code 1 and a sentence per break that is not meant."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--buf", default="buf", help="the buf command")
    given = parser.parse_args()
    found = last_release(ROOT)
    if found is None:
        print("breaking: this clone lacks the commit of the last release, so the protos were not compared with it")
        return
    name, commit = found
    with tempfile.TemporaryDirectory() as folder:
        protos = git(ROOT, "archive", "--format=tar", commit, "proto")
        with tarfile.open(fileobj=io.BytesIO(protos)) as archive:
            archive.extractall(folder, filter="data")
        breaks = compare(given.buf, ROOT / "proto", Path(folder) / "proto")
    meant = tomllib.loads(MEANT.read_text())
    faults = judge(breaks, meant, name)
    print(f"breaking: {len(breaks)} breaks since {name}, {len(faults)} faults")
    sys.exit("\n".join(faults) or 0)


def git(folder: Path, *arguments: str) -> bytes:
    """Return what git prints.

    Raises:
        subprocess.CalledProcessError: It failed.
    """
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, timeout=_SECONDS, check=True).stdout


def last_release(folder: Path) -> tuple[str, str] | None:
    """Return name and commit of the last release of the repository in a folder; None: its history is not here."""
    try:
        tags = git(folder, "tag", "--list", "v[0-9]*.[0-9]*.[0-9]*", "--merged", "HEAD", "--sort=-version:refname")
        if tags.split():
            name = tags.split()[0].decode()
            return name, git(folder, "rev-parse", f"{name}^{{commit}}").decode().strip()
        newest = _RELEASE.search((folder / "CHANGELOG.md").read_text())
        if newest is None or git(folder, "rev-parse", "--is-shallow-repository").strip() == b"true":
            return None
        line = f"## [{newest[1]}]"
        commits = git(folder, "log", "--reverse", "--format=%H", "-S", line, "--", "CHANGELOG.md").split()
    except (OSError, subprocess.SubprocessError):
        return None
    return (newest[1], commits[0].decode()) if commits else None


def compare(buf: str, now: Path, before: Path) -> list[tuple[str, str]]:
    """Return the breaks as (file, sentence).

    Raises:
        RuntimeError: buf failed, with what it said.
    """
    command = [
        str(Path(buf).absolute()) if "/" in buf else buf,
        "breaking",
        "--against",
        str(before),
        "--error-format",
        "json",
    ]
    done = subprocess.run(command, cwd=now, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode and not done.stdout:
        raise RuntimeError(f"buf breaking failed: {done.stderr.strip()[-500:]}")
    breaks = [json.loads(line) for line in done.stdout.splitlines()]
    return [(each.get("path", ""), each["message"]) for each in breaks]


def judge(breaks: list[tuple[str, str]], meant: dict[str, object], release: str) -> list[str]:
    """Return a sentence per break that is not meant, and per meant one that is none.

    Args:
        breaks: From `compare`.
        meant: What breaking.toml holds: since which release, and `breaks` with file, message and reason.
        release: The last release. A list that is for an earlier one holds nothing any more.
    """
    listed = meant.get("breaks", [])
    assert isinstance(listed, list)
    if meant.get("since") != release and listed:
        return [f"breaking.toml is for {meant.get('since')}, and {release} is the last release: empty it."]
    known = {(each["file"], each["message"]) for each in listed if each["reason"].strip()}
    faults = [f"{file}: {message}" for file, message in breaks if not is_meant(file, message, known)]
    gone = [(file, begin) for file, begin in known if not any(is_meant(f, m, {(file, begin)}) for f, m in breaks)]
    return faults + [f"{file}: breaking.toml lists {begin!r}, which breaks nothing." for file, begin in sorted(gone)]


def is_meant(file: str, message: str, known: set[tuple[str, str]]) -> bool:
    """Return whether a break is listed: by its file and the beginning of its sentence."""
    return any(file == where and message.startswith(begin) for where, begin in known)


if __name__ == "__main__":
    main()
