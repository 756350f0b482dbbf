"""The repository's Markdown pages: their code blocks, commands, links and the paths they name."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.paths import ROOT

RUN = "<!-- run -->"
"""The line above a code block that tests run."""
PAGES = sorted(
    page
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "helm" / "cellsparse" / "README.md")
    if page.is_file()
)
_FENCE = re.compile(
    r"^(?P<ticks>```+)(?P<language>[a-z{}-]*)[^\n]*\n(?P<text>.*?)^(?P=ticks)\s*$", re.MULTILINE | re.DOTALL
)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced code block."""

    language: str
    text: str
    line: int
    """Number of its first line in the page."""
    runs: bool
    """Whether `RUN` stands above it."""

    def commands(self) -> list[str]:
        """Return the commands of a console block: of lines that begin with "$ ", with their continuations."""
        joined = self.text.replace("\\\n", " ")
        lines = [line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ ")]
        return [command.strip() for line in lines for command in line.split("&&")]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        above = text[: found.start()].rstrip("\n").rpartition("\n")[2]
        line = text.count("\n", 0, found.start()) + 2
        yield Block(language=found["language"], text=found["text"], line=line, runs=above == RUN)


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def inline_code(page: Path) -> list[str]:
    return _INLINE.findall(prose(page))


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    return [found["target"] for found in _LINK.finditer(prose(page))]


def cellsparse_commands(page: Path) -> list[list[str]]:
    """Return the arguments of all `cellsparse` commands in a page.

    One in the prose may only name a command, as in "`cellsparse train` shows ...": it is given `--help`. What holds
    "..." is not a whole command and is left out.
    """
    typed = [command for block in blocks(page) if block.language == "console" for command in block.commands()]
    named = [
        f"{code} --help" if re.fullmatch(r"cellsparse( [a-z-]+){1,2}", code) else code for code in inline_code(page)
    ]
    split = [shlex.split(text, comments=True) for text in (*typed, *named) if re.search(r"(^|\s)cellsparse ", text)]
    # A variable may stand before a command: CELLSPARSE_HOME=... cellsparse down
    return [words[words.index("cellsparse") + 1 :] for words in split if "..." not in words and "cellsparse" in words]
