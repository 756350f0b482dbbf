"""What the pages say exists: commands with their options, settings, make targets, files."""

import ast
import re
from functools import cache
from itertools import pairwise

import pytest
import typer
import yaml
from support import pages
from support.pages import PAGES, name_of
from support.paths import ROOT

from cellsparse.cli.app import build
from cellsparse.training_settings import training_settings

WORDS = 900
"""Most words of the README: what it is, in one sitting."""
FOLDERS = ("benchmarks/", "docs/", "helm/", "proto/", "services/", "tests/", ".ci/")
NEW_BACKEND = "threshold"
"""The backend that docs/adding-a-backend.md tells its reader to write."""
MADE_BY_READERS = f"services/trainer_{NEW_BACKEND}"
COMMANDS = [(name_of(page), arguments) for page in PAGES for arguments in pages.cellsparse_commands(page)]


def parse(arguments: list[str]) -> list[str]:
    """Parse a command line with the real parser and return the words of the command; nothing is run.

    Raises:
        typer.BadParameter or another usage error: The command line is wrong.
    """
    _parser().main(arguments, prog_name="cellsparse", standalone_mode=False)
    return arguments


@cache
def _parser():
    command = typer.main.get_command(build())
    _do_nothing(command)
    return command


def _do_nothing(command) -> None:
    for inner in getattr(command, "commands", {}).values():
        _do_nothing(inner)
    command.callback = lambda *_, **__: None  # of groups, too: `--ca` would be set for this whole process


def test_there_are_pages_with_commands():
    assert len(PAGES) > 30
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(
    ("page", "arguments"), COMMANDS, ids=[f"{page}: {' '.join(arguments)}" for page, arguments in COMMANDS]
)
def test_a_command_has_the_options_it_is_given(page, arguments, capsys):
    if "COMMAND" in arguments:
        arguments = ["train" if word == "COMMAND" else word for word in arguments]
    parse(arguments)


def test_a_command_with_an_unknown_option_is_found(capsys):
    with pytest.raises(Exception, match=r"(?i)no such option"):
        parse(["train", "few", "--no-such-option"])


@pytest.mark.parametrize(
    "arguments",
    [arguments for _, arguments in COMMANDS if arguments[0] == "train" and NEW_BACKEND not in arguments],
    ids=lambda found: " ".join(found),
)
def test_settings_of_a_training_are_known_and_in_range(arguments):
    settings = [value for option, value in pairwise(arguments) if option == "--set"]
    backend = arguments[arguments.index("--backend") + 1] if "--backend" in arguments else "cellpose"
    training_settings(backend, dict(setting.split("=", 1) for setting in settings))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    targets = [target.partition("#")[0] for target in pages.links(page) if not re.match(r"[a-z]+:|#", target)]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_are_named_exist(page):
    code = [each.partition("::")[0] for each in pages.inline_code(page)]  # a test is named as pytest names it
    named = [each for each in code if each.startswith(FOLDERS) and " " not in each]
    missing = [path for path in named if not path.startswith(MADE_BY_READERS) and not list(ROOT.glob(path.rstrip("/")))]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [command for block in pages.blocks(page) if block.language == "console" for command in block.commands()]
    named = {
        found[1] for text in (*commands, *pages.inline_code(page)) if (found := re.match(r"make ([a-z0-9-]+)", text))
    }
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_blocks_are_python(page):
    for block in pages.blocks(page):
        if block.language == "python":
            ast.parse(block.text, filename=f"{name_of(page)}:{block.line}")


def test_the_tests_that_the_threat_model_names_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "SECURITY.md").read_text())
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= WORDS


def test_the_citation_has_what_its_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert {"type", "title", "authors"} <= citation["preferred-citation"].keys()
    workspace = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{citation["version"]}"' in workspace
