"""Sphinx extension: writes tables from the code into the pages.

A line `<!-- generated: NAME ARGUMENT... -->` of a page is replaced by what `RENDERERS[NAME]` returns, as Markdown. The
pages in the repository hold only that line, so that no table can contradict the code.

Links that leave docs/ work in the repository and would not in the built pages: they become downloads.
"""

import re
from collections.abc import Callable
from pathlib import Path

import grpc_reference
import metrics_table
import settings_tables
from sphinx.application import Sphinx

from cellsparse_trainer.defaults import tables

MARK = re.compile(r"^<!-- generated: (?P<name>[a-z-]+)(?P<arguments>( \S+)*) -->$", re.MULTILINE)

LINK = re.compile(r"(?<!!)(?P<text>\[[^\]]*\])\((?P<target>\.\./[^)#\s]+)")
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))")

RENDERERS: dict[str, Callable[..., str]] = {
    "environment": settings_tables.environment,
    "yaml-keys": settings_tables.yaml_keys,
    "presets": lambda: tables().replace("## ", "### "),
    "metrics": metrics_table.metrics,
    "proto": grpc_reference.proto,
}


def fill(text: str) -> str:
    """Return a page with its generated parts in place.

    Raises:
        KeyError: A mark names a renderer that is not there.
    """
    return MARK.sub(lambda found: RENDERERS[found["name"]](*found["arguments"].split()), text)


def link_outside(text: str, page: Path, root: Path) -> str:
    """Return a page whose links to files outside of `root` are marked as paths, which MyST offers as downloads."""

    def mark(found: re.Match[str]) -> str:
        inside = (page.parent / found["target"]).resolve().is_relative_to(root)
        return found[0] if inside else f"{found['text']}(path:{found['target']}"

    return LINK.sub(mark, text)


def _fill_page(app: Sphinx, page: str, source: list[str]) -> None:
    path = Path(app.env.doc2path(page))
    source[0] = link_outside(fill(source[0]), path, Path(app.srcdir).resolve())


def _from_markdown(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Turn what docstrings write as Markdown into reStructuredText: examples, and names in backquotes."""
    shown = [part for line in lines for part in (["Example::", ""] if line.strip() == "Example:" else [line])]
    lines[:] = [CODE.sub(lambda found: f"``{found[1]}``" + ("\\ " if found[2] else ""), line) for line in shown]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", _fill_page)
    app.connect("autodoc-process-docstring", _from_markdown, priority=100)  # before napoleon reads the sections
    return {"parallel_read_safe": True, "parallel_write_safe": True}
