"""Large images with many cells, made quickly."""

import numpy as np


def crowd(height: int, width: int, spacing: int = 70) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (uint16, YX) of bright discs on a grid, and its labels (int32): -1 open, n > 0 cell n."""
    random = np.random.default_rng(0)
    pixels = random.integers(80, 120, (height, width), dtype=np.uint16)
    labels = np.full((height, width), -1, np.int32)
    largest = spacing // 2 - 3
    y, x = np.mgrid[-largest : largest + 1, -largest : largest + 1]
    distance = y**2 + x**2
    number = 0
    for top in range(0, height - spacing + 1, spacing):
        for left in range(0, width - spacing + 1, spacing):
            number += 1
            disc = distance < random.integers(largest // 2, largest) ** 2
            inside = slice(top + 3, top + 3 + len(y)), slice(left + 3, left + 3 + len(y))
            pixels[inside][disc] += np.uint16(random.integers(300, 900))
            labels[inside][disc] = number
    return pixels, labels
