"""The metrics of the sparsifier; `cellsparse_common.rpc.metrics` lists the names."""

from prometheus_client import CollectorRegistry, Counter


class SparsifyMetrics:
    """Counts the work done."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._images = Counter("cellsparse_sparsified_images", "Images and stacks sparsified.", registry=registry)
        self._pixels = Counter("cellsparse_sparsified_pixels", "Pixels of these.", registry=registry)

    def count(self, pixels: int) -> None:
        """Count one image or stack of so many pixels."""
        self._images.inc()
        self._pixels.inc(pixels)
