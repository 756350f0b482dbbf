"""Images of bright discs on dark ground, some dim, some large, and some cut by the border."""

import numpy as np


def scene(seed=0, size=160, cells=14, radius=7.0, brightness=1.0, noise=0.01):
    """An image (uint16) and its label image."""
    random = np.random.default_rng(seed)
    label = np.zeros((size, size), np.int32)
    image = np.full((size, size), 0.1)
    rows, columns = np.mgrid[:size, :size]
    number = 0
    for _ in range(cells * 20):
        if number == cells:
            break
        y, x = random.uniform(0, size, 2)
        r = radius * random.uniform(0.8, 1.25)
        disc = np.hypot(rows - y, columns - x) <= r
        if label[np.hypot(rows - y, columns - x) <= r + 4].any():
            continue
        number += 1
        label[disc] = number
        image[disc] = 0.1 + brightness * random.uniform(0.4, 0.9)
    image += random.normal(0, noise, image.shape)
    return (np.clip(image, 0, 2) * 20000).astype(np.uint16), label
