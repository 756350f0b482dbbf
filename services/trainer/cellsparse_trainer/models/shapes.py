"""Whether the weights in a file are those of a network."""

from collections.abc import Mapping

from cellsparse_common.errors import InvalidArgument

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of every array by its name in the state dict."""


def check_shapes(expected: Shapes, given: Shapes, network: str) -> None:
    """Check names and shapes of a file's arrays.

    Args:
        expected: The network's.
        given: The file's.
        network: What the network is called in errors.

    Raises:
        InvalidArgument: They differ; names the first array that does.
    """
    missing = [name for name in expected if name not in given]
    strange = [name for name in given if name not in expected]
    if missing:
        raise InvalidArgument(f"The file is no {network}: {_first(missing)} missing.", "file")
    if strange:
        raise InvalidArgument(f"The file is no {network}: {_first(strange)} not in it.", "file")
    for name, shape in expected.items():
        if given[name] != shape:
            raise InvalidArgument(
                f"The file is no {network}: {name} has shape {given[name]}; expected is {shape}.", "file"
            )


def _first(names: list[str]) -> str:
    more = len(names) - 1
    return f"{names[0][:100]} and {more} more arrays are" if more else f"{names[0][:100]} is"
