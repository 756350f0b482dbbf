"""Writes the tables of helm/cellsparse/README.md from the comments of values.yaml: `make chart-readme`.

What stands between the two markers of the README is made here, the rest is written by hand. Every key must have a
comment above it, but for those of mappings that are plain data (a flow mapping, requests and limits): such a mapping is
one row.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).parent / "cellsparse"
BEGIN, END = "<!-- values: make chart-readme -->", "<!-- end of values -->"


def render(values: str) -> str:
    """Return the README's part on values.

    Args:
        values: Text of values.yaml.

    Raises:
        ValueError: A key has no comment.
    """
    lines = values.splitlines()
    parts = []
    for key, value in _children(yaml.compose(values)):
        part = [f"### `{key.value}`", "", comment(lines, key), ""]
        if isinstance(value, yaml.MappingNode):
            part += ["| Value | Default | Meaning |", "|---|---|---|", *_rows(lines, key.value, key, value)]
        else:
            part.append(f"Default: `{_default(value)}`")
        parts.append("\n".join(part))
    return "\n\n".join(parts)


def comment(lines: list[str], key: yaml.ScalarNode) -> str:
    """Return the comment above a key, its lines joined.

    Args:
        lines: All lines of the file.
        key: Where to look.

    Raises:
        ValueError: There is none.
    """
    found: list[str] = []
    for line in reversed(lines[: key.start_mark.line]):
        if not line.strip().startswith("#"):
            break
        found.insert(0, line.strip().lstrip("# "))
    if not found:
        raise ValueError(f"values.yaml, line {key.start_mark.line + 1}: {key.value} has no comment above it.")
    return " ".join(found)


def _rows(lines: list[str], path: str, key: yaml.ScalarNode, value: yaml.Node) -> Iterator[str]:
    if isinstance(value, yaml.MappingNode) and not value.flow_style and _described(lines, value):
        for inner, node in _children(value):
            yield from _rows(lines, f"{path}.{inner.value}", inner, node)
        return
    yield f"| `{path}` | `{_default(value)}` | {comment(lines, key)} |"


def _described(lines: list[str], value: yaml.MappingNode) -> bool:
    """Whether the keys of a mapping have comments of their own, which plain data such as resources has not."""
    first = value.value[0][0]
    return lines[first.start_mark.line - 1].strip().startswith("#")


def _default(value: yaml.Node) -> str:
    data = yaml.safe_load(yaml.serialize(value))
    return yaml.safe_dump(data, default_flow_style=True, width=10_000, sort_keys=False).split("\n")[0]


def _children(node: yaml.Node) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    pairs: list[tuple[yaml.ScalarNode, yaml.Node]] = node.value
    return pairs


def updated(readme: str, values: str) -> str:
    """Return the README with new tables.

    Args:
        readme: Its text now.
        values: Text of values.yaml.

    Raises:
        ValueError: The markers are not there, or a value has no comment.
    """
    head, begin, rest = readme.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md must hold the lines {BEGIN} and {END}.")
    return f"{head}{BEGIN}\n\n{render(values)}\n\n{END}{tail}"


def main() -> None:
    """Write the README; 1 and a sentence if it cannot be made."""
    path = CHART / "README.md"
    try:
        text = updated(path.read_text(encoding="utf-8"), (CHART / "values.yaml").read_text(encoding="utf-8"))
    except ValueError as error:
        sys.exit(str(error))
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
