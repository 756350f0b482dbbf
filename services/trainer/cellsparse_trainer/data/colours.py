"""Augmentation of images of several channels: stains are never equally strong."""

import numpy as np
import numpy.typing as npt


def shift_colours(image: npt.NDArray[np.float32], strength: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Change the brightness of each channel by itself, as stains of another strength or another lamp would.

    Args:
        image: Any axes, channels last, values of about 0 to 1.
        strength: 0 to 1: each channel is multiplied by 1 - strength to 1 + strength, and then up to half of strength is
            added or taken away. 0 changes nothing and draws no number.
        rng: Random numbers.

    Returns:
        float32, axes as given.
    """
    if strength == 0:
        return image
    channels = image.shape[-1]
    gain = rng.uniform(1 - strength, 1 + strength, channels).astype(np.float32)
    shift = rng.uniform(-strength / 2, strength / 2, channels).astype(np.float32)
    return np.asarray(image * gain + shift, np.float32)
