"""The vendored viewer of the API's description is what its list says."""

import hashlib
import re

from support.paths import ROOT

FOLDER = ROOT / "services" / "gateway" / "cellsparse_gateway" / "api_page"


def test_files_are_the_ones_listed_with_their_sums():
    text = (FOLDER / "VENDORED.md").read_text()
    listed = dict(re.findall(r"^\| `(swagger-ui/[^`]+)` \|.*\| `([0-9a-f]{64})` \|$", text, re.MULTILINE))
    assert {path.relative_to(FOLDER).as_posix() for path in (FOLDER / "swagger-ui").iterdir()} == set(listed)
    for name, expected in listed.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == expected, name


def test_our_own_files_load_nothing_from_elsewhere():
    for name in ("index.html", "start.js"):
        assert "http" not in (FOLDER / name).read_text()
