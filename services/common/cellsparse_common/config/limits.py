"""Limits on the size of an image."""

DEFAULT_MAX_PIXELS = 2**26
"""Most pixels of an image, or voxels of a stack, that a server decodes by default."""

LARGEST_MAX_PIXELS = 2**31
"""The largest limit that a server can be set to."""

DEFAULT_MAX_PROJECT_PIXELS = 2**28
"""Most pixels of an image of a project (height x width, of a stack x planes) by default: 16,384 x 16,384."""
