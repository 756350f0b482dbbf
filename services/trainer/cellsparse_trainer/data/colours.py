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
    gain, shift = draw_colours(image.shape[-1], strength, rng)
    return np.asarray(image * gain + shift, np.float32)


def draw_colours(
    channels: int, strength: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return what each channel is multiplied with, and what is then added, as `shift_colours` draws them."""
    if strength == 0:
        return np.ones(channels, np.float32), np.zeros(channels, np.float32)
    gain = rng.uniform(1 - strength, 1 + strength, channels).astype(np.float32)
    return gain, rng.uniform(-strength / 2, strength / 2, channels).astype(np.float32)
