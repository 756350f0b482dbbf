"""Every command, with paths, homes, names and addresses that cannot be used: one sentence and a code, no traceback."""

import itertools
import os
import sys

import pytest
import typer

from cellsparse import local_services
from cellsparse.cli.app import build, run
from cellsparse.cli.exits import Exit
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, study_pb2

CODES = {Exit.OK, Exit.RUN_FAILED, Exit.USAGE, Exit.NOT_FOUND, Exit.UNAVAILABLE}
NO_UTF8 = os.fsdecode(b"caf\xe9")
PATHS = [
    "missing/below",
    "/dev/null",
    "/dev/null/below",
    "/dev/full",
    "/proc/none/below",
    "/proc/1",
    "x" * 5000,
    "x" * 300,
    "a\0b",
    "a\nb",
    NO_UTF8,
    "",
    "~nobody-of-this-name/x",
    "pipe",
]
NAMES = ["", "x" * 5000, "a\nb", "a\0b", NO_UTF8, "細胞 🦠"]
ADDRESSES = [
    "http://127.0.0.1:80",
    "::1",
    "[::1]:99999",
    "host:99999",
    "host:0",
    "",
    " ",
    "host",
    "u:hunter2@h:1",
    "a\0b:1",
]
REFUSED = "127.0.0.1:1"
GOOD = {"dataset": "nuclei", "run": "first", "model": "first", "study": "grid", "name": "trial", "project": "page"}
REQUIRED = {
    "sha256": "",
    "licence": "MIT",
    "backend": "unet",
    "encoder": "missing.onnx",
    "decoder": "missing.onnx",
    "k": "4",
    "over": "steps=1,2",
    "trials": "1",
}


def leaves(command, words=()):
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from leaves(below, (*words, name))
    else:
        yield words, command


ROOT = typer.main.get_command(build())
COMMANDS = dict(leaves(ROOT))


@pytest.fixture
def known(fake, make, monkeypatch, tmp_path):
    """An orchestrator with one of each, and no command that starts a process or opens a browser."""
    fake.state.datasets = [dataset_pb2.Dataset(id="ds-abc1", name="nuclei")]
    fake.state.runs = [make.run("run-1", "first", common_pb2.RUN_STATE_SUCCEEDED)]
    fake.state.models = [orchestrator_pb2.Model(id="run-1", name="first", backend="unet")]
    fake.state.studies = [study_pb2.Study(id="study-1", name="grid", state=study_pb2.STUDY_STATE_SUCCEEDED)]
    fake.state.events = [make.event(1, common_pb2.RUN_STATE_SUCCEEDED)]
    fake.state.report = {
        "best": {"overall": None},
        "cost": {"training_seconds": 0, "annotated_cells_of_largest_label_set": 0},
    }
    monkeypatch.setattr(local_services, "COMMAND", [sys.executable, "-c", "raise SystemExit('not started')"])
    monkeypatch.setenv("CELLSPARSE_TLS_CA", "")  # --ca sets it
    monkeypatch.setattr("cellsparse.study_report.can_plot", lambda: False)
    monkeypatch.setenv("CELLSPARSE_DEBUG", "1")
    monkeypatch.setattr(typer.main, "get_command", lambda _: ROOT)  # most of a refusal's time
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")  # whoever opens it waits for ever
    return fake


def line(words, command, changed=None, value=""):
    """A command's arguments, with one of them changed."""
    options, arguments = [], []
    for parameter in command.params:
        option = parameter.opts[0]
        good = GOOD.get(parameter.name, REQUIRED.get(parameter.name, "somewhere"))
        given = value if parameter is changed else good
        if not option.startswith("-"):
            if parameter is changed or parameter.required or parameter.name == "dataset":
                arguments.append(given)
        elif parameter is changed or parameter.required:
            options.append(f"{option}={given}")
    return [*words, *options, "--", *arguments]


def check(arguments, capsys):
    code = run(arguments)
    printed = capsys.readouterr()
    if not any(words in printed.err for words in ("Method not found", "Method not implemented")):  # by the fake
        assert code in CODES, (arguments, code, printed.err)
    assert "Traceback" not in printed.err
    assert "hunter2" not in printed.err + printed.out
    if code not in (Exit.OK, Exit.RUN_FAILED):
        assert printed.err.strip(), arguments
    return code, printed.err


TURN = itertools.count()


def some(values, count):
    """The next few of them, in turn: every command with each would take minutes."""
    return [values[next(TURN) % len(values)] for _ in range(count)]


def is_text(parameter):
    return parameter.type.name in ("text", "path", "str") and parameter.name not in ("json", "address")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_paths_and_names(known, capsys, words):
    command = COMMANDS[words]
    for parameter in filter(is_text, command.params):
        is_path = parameter.type.name == "path" or any(k in (parameter.metavar or "") for k in ("DIR", "FILE", "PATH"))
        for value in PATHS if is_path else some(NAMES, 1):
            check(line(words, command, parameter, value), capsys)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_addresses(known, capsys, words, monkeypatch):
    command = COMMANDS[words]
    (parameter, *_) = [each for each in command.params if each.name == "address"] or [None]
    for value in some(ADDRESSES, 1) if parameter else ():
        code, said = check(line(words, command, parameter, value), capsys)
        assert code == Exit.USAGE, (value, said)
    if parameter:
        monkeypatch.setattr("cellsparse.reconnect.PATIENCE_SECONDS", 0)
        code, said = check(line(words, command, parameter, REFUSED), capsys)
        here = [Exit.OK] if words == ("logout",) else []  # it asks no server
        assert code in (Exit.UNAVAILABLE, Exit.USAGE, Exit.NOT_FOUND, *here)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_homes(known, capsys, words, monkeypatch):
    monkeypatch.delenv("CELLSPARSE_ADDRESS")
    for home in some(PATHS, 2):
        if "\0" in home or not home:
            continue  # no variable of a process can hold it; empty: not given
        monkeypatch.setenv("CELLSPARSE_HOME", home)
        check(line(words, COMMANDS[words]), capsys)


@pytest.mark.parametrize(
    "ca", ["missing.pem", "pipe", "/dev/null", "/dev/zero", "/dev/null/x", "x" * 5000, "a\0b", NO_UTF8]
)
def test_certificates(known, capsys, ca):
    code, _ = check([f"--ca={ca}", "status"], capsys)
    assert code == Exit.USAGE


def test_an_unforeseen_error_is_one_sentence(known, capsys, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("by nought")

    monkeypatch.delenv("CELLSPARSE_DEBUG")
    monkeypatch.setattr("cellsparse.cli.render.dataset_table", fail)
    assert run(["dataset", "list"]) == Exit.SERVER
    assert "An error of Cellsparse itself (ZeroDivisionError: by nought)" in capsys.readouterr().err


def test_names_that_are_no_utf8_are_printed(known, capsys, tmp_path):
    code, said = check(["dataset", "import", str(tmp_path / NO_UTF8)], capsys)
    assert code == Exit.USAGE
    assert "caf\\udce9 is not a folder" in said
