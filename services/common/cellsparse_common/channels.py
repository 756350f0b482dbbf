"""Channels of images: their names, and which of them are meant by numbers and names.

Arrays have channels last, as at rest in the store: axes YXC or ZYXC. One channel alone has no axis: YX or ZYX.
"""

import unicodedata
from collections.abc import Sequence

from cellsparse_common.errors import InvalidArgument

MEAN = "mean"
"""Stands for the mean of all channels where channels are named."""
MAX_CHANNELS = 16
"""Most channels of an image."""
RGB = ("red", "green", "blue")
ALPHA = "alpha"
"""Transparency, the last channel of some colour images."""
_LONGEST = 64


def clean_names(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return a name for each channel: short, printable and unique.

    Args:
        names: Names from a file or a request, which is not trusted; empty: there are none.
        count: Number of channels.

    Returns:
        As many names as channels. The number of a channel, from 0, is its name where there is no other, or where an
        earlier one has the same. Empty for one channel without a name.
    """
    found = ["".join(c if unicodedata.category(c)[0] != "C" else " " for c in name) for name in names]
    found = [" ".join(name.split())[:_LONGEST].strip() for name in found]
    if len(found) != count:
        found = [""] * count
    if count == 1 and not found[0]:
        return ()
    numbers = {str(n) for n in range(count)}
    unique: list[str] = []
    for n, name in enumerate(found):
        taken = not name or name.casefold() in (each.casefold() for each in unique) or name in numbers - {str(n)}
        unique.append(str(n) if taken else name)
    return tuple(unique)


def is_colour(names: Sequence[str]) -> bool:
    """Return whether channels are those of a colour image: red, green and blue, and perhaps transparency."""
    return tuple(name.casefold() for name in names) in (RGB, (*RGB, ALPHA))


def find_channel(wanted: str, names: Sequence[str], count: int, field: str = "channels") -> int:
    """Return the number of a channel, from 0.

    Args:
        wanted: Its number from 0, or its name; letters of either case.
        names: Names of the image's channels; may be empty.
        count: Number of channels that the image has.
        field: Name of the request's field.

    Raises:
        InvalidArgument: There is no such channel; names those there are.
    """
    text = wanted.strip()
    if text.isascii() and text.isdigit() and int(text) < count:
        return int(text)
    folded = [name.casefold() for name in names]
    if text.casefold() in folded:
        return folded.index(text.casefold())
    there = ", ".join(f"{n} ({name})" if name != str(n) else name for n, name in enumerate(names))
    there = there or ", ".join(map(str, range(count)))
    raise InvalidArgument(f"The image has {count} channel(s); channel {text} does not exist. Channels: {there}.", field)


def find_channels(wanted: Sequence[str], names: Sequence[str], count: int, field: str = "channels") -> tuple[int, ...]:
    """Return the numbers of channels, in the order given; empty for the mean of all (see `MEAN`).

    Raises:
        InvalidArgument: A channel does not exist or is named twice, or the mean is asked for among others.
    """
    if [each.strip().casefold() for each in wanted] == [MEAN]:
        return ()
    if any(each.strip().casefold() == MEAN for each in wanted):
        raise InvalidArgument(f"{field} are {', '.join(wanted)}; {MEAN} stands alone or not at all.", field)
    found = tuple(find_channel(each, names, count, field) for each in wanted)
    if len(set(found)) != len(found):
        raise InvalidArgument(f"{field} are {', '.join(wanted)}; name each channel once.", field)
    return found
