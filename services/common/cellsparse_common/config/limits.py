"""Limits on the size of an image."""

DEFAULT_MAX_PIXELS = 2**26
"""Most pixels of an image, or voxels of a stack, that a server decodes by default."""

LARGEST_MAX_PIXELS = 2**31
"""The largest limit that a server can be set to."""
