"""Messages of services in the words of those who read them."""

import pytest

from cellsparse.cli.app import run
from cellsparse.client import Client
from cellsparse.errors import InvalidArgument
from cellsparse.words import as_typed, reworded, with_options
from cellsparse_common import errors


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("mode is 9, which is unknown; allowed: SELECTION_MODE_MIN.", "mode is 9, which is unknown; allowed: min."),
        ("upload it as LABEL_KIND_OFFSET_BY_ONE.", "upload it as offset_by_one."),
        ("precision is BFLOAT16; ask for AUTO or FLOAT32.", "precision is bfloat16; ask for auto or float32."),
        ("no labelled cell in an item of split TRAIN", "no labelled cell in an item of split train"),
        ("splits holds SPLIT_UNSPECIFIED; allowed: SPLIT_VAL.", "splits holds none; allowed: val."),
        ("Run r is RUN_STATE_FAILED.", "Run r is failed."),
        # What somebody typed or called so stays, and so does what is no constant of ours.
        ("Dataset 'my MINMAX' is no ONNX file; set CELLSPARSE_TLS_CA.", None),
        ("The image is not a TIFF or PNG file.", None),
    ],
)
def test_constants_become_what_is_typed(said, read):
    assert as_typed(said) == (read or said)


def test_fields_become_options():
    options = {"total_percent": "--percent", "label_kind": "--label-kind", "k": "--k", "axes": "--axes"}
    said = "settings.total_percent is 0; allowed: above 0 to 100. k is -1; 'k is' and look is not."
    assert with_options(said, options) == (
        "--percent is 0; allowed: above 0 to 100. --k is -1; 'k is' and look is not."
    )
    assert with_options("file.axes is 'QYX'; allowed: YX.", options) == "--axes is 'QYX'; allowed: YX."
    assert with_options("run.settings.k must be 1. It looks.k is", options) == "--k must be 1. It looks.k is"
    assert with_options(said, {}) == said


def test_an_error_and_its_violations_stay_the_same_sentence():
    said = "splits[0] is 7; allowed: SPLIT_TRAIN."
    error = reworded(InvalidArgument(said, "splits[0]"))
    assert (error.message, str(error)) == ("splits[0] is 7; allowed: train.",) * 2
    assert error.violations == [("splits[0]", error.message)]


def test_the_sdk_and_the_command_line_use_them(fake, capsys, monkeypatch):
    def refuse(*_):
        raise errors.InvalidArgument("total_percent is 0; allowed: SPLIT_TRAIN, PAPER.", "total_percent")

    monkeypatch.setattr(type(fake.state), "datasets", property(refuse), raising=False)
    with Client() as client, pytest.raises(InvalidArgument, match=r"^total_percent is 0; allowed: train, paper\.$"):
        list(client.datasets())
    assert run(["sparsify", "nuclei", "--percent", "0"]) == 2
    assert capsys.readouterr().err == "error: --percent is 0; allowed: train, paper.\n"
