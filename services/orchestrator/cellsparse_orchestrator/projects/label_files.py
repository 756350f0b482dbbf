"""Labels of whole images: reading them from tiles, exporting them as files, importing files into annotations."""

from collections.abc import Iterator, Mapping

import numpy as np

from cellsparse_common.errors import Aborted, InvalidArgument
from cellsparse_common.imaging.label_formats import LabelOutput, encode, name_of
from cellsparse_common.imaging.labels import decode_labels
from cellsparse_common.imaging.types import Labels
from cellsparse_orchestrator.projects.annotation import Annotations
from cellsparse_orchestrator.projects.label_numbers import BACKGROUND, NEW, Numbers, to_labels
from cellsparse_orchestrator.projects.label_tiles import LabelImage, LabelTiles
from cellsparse_orchestrator.projects.patches import Change
from cellsparse_orchestrator.projects.projects import Projects
from cellsparse_orchestrator.projects.tiling import TILE, Extent, Place
from cellsparse_proto.v1 import project_pb2

_ATTEMPTS = 5


def read_labels(tiles: LabelTiles, image: LabelImage) -> Labels:
    """Return all labels of an image: -1 not labelled (of a layer: nothing there, so 0), 0 background, n cell n."""
    labels = np.full(image.extent.shape, 0 if image.layer_id else -1, np.int32)
    for place in image.tiles:
        numbers = tiles.tile(image, place)
        found = to_labels(numbers)
        window(labels, place)[...] = np.maximum(found, 0) if image.layer_id else found
    return labels


def window(labels: Labels, place: Place) -> Labels:
    """Return the part of a label image that a tile covers."""
    plane = labels[place.plane] if labels.ndim == 3 else labels
    return plane[place.y * TILE : (place.y + 1) * TILE, place.x * TILE : (place.x + 1) * TILE]


def export_labels(
    tiles: LabelTiles, request: project_pb2.ExportLabelsRequest, spacing: list[float], image_name: str
) -> bytes:
    """Return an annotation, or a layer, as a file.

    Raises:
        NotFound: There is no such image or layer.
        InvalidArgument: The format holds no stacks.
        ResourceExhausted: Its cells' outlines are too long.
    """

    def read() -> Labels:
        return read_labels(tiles, tiles.open(request.image_id, request.layer_id))

    file = LabelOutput(label=tiles.retry(read), spacing=spacing, image_name=image_name, background=not request.layer_id)
    return encode(name_of(request.format), file)


class LabelImport:
    """Adds the labels of files to annotations.

    Args:
        projects: Knows the images.
        annotations: Changes the annotations.
        max_pixels: Largest image, pixels.
    """

    def __init__(self, projects: Projects, annotations: Annotations, max_pixels: int) -> None:
        self._projects = projects
        self._annotations = annotations
        self._max_pixels = max_pixels

    def add(self, header: project_pb2.ImportLabelsHeader, data: bytes) -> project_pb2.ProjectImage:
        """Add the labels of a file where the annotation has none.

        Raises:
            NotFound: There is no such image.
            InvalidArgument: The file holds no labels, or those of an image of another size.
            ResourceExhausted: The file is too large.
            Aborted: Others edit the annotation all the time.
        """
        image = self._projects.image(header.image_id)
        extent = Extent(height=image.height, width=image.width, planes=image.planes)
        labels = decode_labels(
            data,
            shape=extent.shape,
            max_pixels=self._max_pixels,
            kind=header.label_kind,
            field="label file",
            partial=True,
        )
        cells = np.unique(labels[labels > 0])
        for attempt in range(_ATTEMPTS):
            base = self._annotations.next_label(header.image_id)
            if base + len(cells) >= NEW:
                raise InvalidArgument(f"The file has {len(cells):,} cells; no more numbers are left.", "label file")
            changes = fill_changes(labels, cells, base, extent)
            try:
                self._annotations.add(header.image_id, header.author, changes, len(cells), base)
                break
            except Aborted:
                if attempt == _ATTEMPTS - 1:
                    raise
        return self._projects.image(header.image_id)


def fill_changes(labels: Labels, cells: Labels, base: int, extent: Extent) -> Mapping[Place, Change]:
    """Return for each tile the change that adds labels where there are none.

    Args:
        labels: -1 not labelled, 0 background, n > 0 cell n.
        cells: The numbers of all its cells, ascending.
        base: The label number of the first one.
        extent: Size of the image.
    """

    def fill(place: Place) -> Change:
        def change(tile: Numbers) -> None:
            part = window(labels, place)
            numbers = np.where(part == 0, BACKGROUND, np.searchsorted(cells, part) + base).astype(np.uint32)
            np.copyto(tile, numbers, where=(part >= 0) & (tile == 0))

        return change

    return {place: fill(place) for place in extent.places() if (window(labels, place) >= 0).any()}


def chunks(data: bytes) -> Iterator[bytes]:
    """Yield a file in parts of at most 1 MiB."""
    for begin in range(0, len(data), 2**20):
        yield data[begin : begin + 2**20]
