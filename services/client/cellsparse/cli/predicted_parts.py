"""What `cellsparse predict` sends: whole files, or chosen parts of them with a result each."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cellsparse.choices import Choice, chosen_parts, must_be_read, part_file
from cellsparse.errors import AlreadyExists, CellsparseError
from cellsparse_common.imaging.label_formats import file_name


@dataclass(kw_only=True)
class Parts:
    """Contents to predict, in the order of `places`."""

    targets: Mapping[Path, Path]
    """Where each image's result goes."""
    choice: Choice
    """Which parts of the images are wanted."""
    kind: str
    """Format of the results."""
    force: bool
    """Whether results may replace files."""
    places: deque[tuple[Path, Path]] = field(default_factory=deque)
    """Image and target of each content that was given and whose result is still to come."""
    failed: list[tuple[Path, CellsparseError]] = field(default_factory=list)
    """Images without a result, and why."""

    def contents(self, limit: Callable[[], int], axes: str) -> Iterator[Path | bytes]:
        """Yield what to predict: paths, or the files of parts."""
        for image, target in self.targets.items():
            if not must_be_read(image, self.choice):
                self.places.append((image, target))
                yield image
                continue
            try:
                for ending, part in chosen_parts(image, self.choice, limit(), axes):
                    self.places.append((image, self._target(image, target, ending)))
                    yield part_file(part)
            except CellsparseError as error:
                self.failed.append((image, error))

    def _target(self, image: Path, target: Path, ending: str) -> Path:
        made = target.with_name(file_name(self.kind, f"{image.stem.removesuffix('.ome')}{ending}.tif", ""))
        if made != target and made.exists() and not self.force:
            raise AlreadyExists(f"{made} is there already; --force overwrites it.")
        return made
