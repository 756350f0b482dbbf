"""Limits on the size of an image, in pixels and in bytes."""

DEFAULT_MAX_PIXELS = 2**26
"""Most pixels of an image, or voxels of a stack, that a server decodes by default."""

LARGEST_MAX_PIXELS = 2**31
"""The largest limit that a server can be set to."""

DEFAULT_MAX_PROJECT_PIXELS = 2**28
"""Most pixels of an image of a project (height x width, of a stack x planes) by default: 16,384 x 16,384."""

DEFAULT_MAX_DECODED_BYTES = 2**30
"""Most bytes that one image, or label image, of any file format unpacks to by default: 10,000 x 10,000 pixels of 4
channels of 16 bit take 0.75 of it."""
