"""How large an image may be."""

DEFAULT_MAX_PIXELS = 2**26
"""Most pixels of an image, or voxels of a stack, that a server decodes unless it is set otherwise."""

LARGEST_MAX_PIXELS = 2**31
"""The largest limit that a server can be set to."""
