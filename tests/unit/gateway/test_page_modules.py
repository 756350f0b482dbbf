"""The page's modules: their own tests under Node, where it is there, and what they may hold."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.limits import PATIENCE
from support.paths import ROOT

STATIC = ROOT / "services" / "gateway" / "cellsparse_gateway" / "static"
MODULES = sorted((STATIC / "js").rglob("*.js"))
TESTS = sorted((Path(__file__).parent / "page").glob("*.test.mjs"))
IMPORT = re.compile(r"""^(?:import|export)\b[^'"]*?\bfrom\s+['"]([^'"]+)['"]""", re.MULTILINE)


@pytest.mark.parametrize("test", TESTS, ids=lambda path: path.stem)
def test_modules_do_what_their_tests_say(test):
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed; it runs the tests of the page's modules")
    done = subprocess.run([node, "--test", str(test)], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_a_module_imports_files_that_are_there_by_relative_paths(module):
    for target in IMPORT.findall(module.read_text(encoding="utf-8")):
        assert target.startswith("."), f"{module.name} imports {target!r}"
        assert (module.parent / target).is_file(), f"{module.name} imports {target!r}, which is not there"


@pytest.mark.parametrize("page", sorted(STATIC.rglob("*.html")), ids=lambda path: path.relative_to(STATIC).as_posix())
def test_pages_hold_no_script_and_no_style_of_their_own(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", text)


def test_nothing_is_loaded_from_elsewhere():
    for path in [*MODULES, STATIC / "index.html", STATIC / "style.css"]:
        found = re.findall(r"https?://(?!www\.w3\.org/)[^\s'\"`)]+", path.read_text(encoding="utf-8"))
        assert not found, f"{path.name} names {found}"


def test_vendored_files_are_the_ones_listed_with_their_sums():
    vendor = STATIC / "vendor"
    rows = re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (vendor / "VENDORED.md").read_text(), re.MULTILINE)
    listed = dict(rows)
    ours = ("preact/", "htm/", "uplot/")
    there = {p.relative_to(vendor).as_posix() for p in vendor.rglob("*") if p.is_file()}
    assert {name for name in there if name.startswith(ours)} == set(listed)
    for name, expected in listed.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == expected, name
