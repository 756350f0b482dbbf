"""Keep paths of the server's machine out of what clients are told: the settings that name them stand there instead."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cellsparse_common.config.settings import ENV_PREFIX, ServerSettings

_END = r"(?=[/\s'\":,.;)\]]|$)"


class PrivatePaths:
    """Replaces paths in sentences.

    Args:
        places: What is said instead, by absolute path; what lies below a path is shown.
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        known = {path.rstrip("/"): words for path, words in places.items()}
        self._places = {path: words for path, words in known.items() if path.startswith("/")}
        longest_first = sorted(self._places, key=len, reverse=True)
        self._pattern = re.compile("(?:file://)?(" + "|".join(map(re.escape, longest_first)) + ")" + _END)

    def hide(self, text: str) -> str:
        """Return a sentence without these paths."""
        if not self._places:
            return text
        return self._pattern.sub(lambda found: self._places[found[1]], text)


def private_paths(settings: ServerSettings) -> PrivatePaths:
    """Return the paths that the settings of a server hold, and that of temporary files."""
    places = {tempfile.gettempdir(): "TMPDIR"}
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        if isinstance(value, Path):
            places[str(value)] = f"{ENV_PREFIX}{field.upper()}"
    store = urlsplit(settings.store_url)
    if store.scheme == "file":
        places[unquote(store.path)] = "the store"
    return PrivatePaths(places)
