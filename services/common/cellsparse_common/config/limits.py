"""Limits on the size of an image, in pixels and in bytes."""

DEFAULT_MAX_PIXELS = 2**27
"""Most pixels of an image, or voxels of a stack, that a server decodes by default: 11,585 x 11,585."""

LARGEST_MAX_PIXELS = 2**31
"""The largest limit that a server can be set to."""

DEFAULT_MAX_PROJECT_PIXELS = 2**28
"""Most pixels of an image of a project (height x width, of a stack x planes) by default: 16,384 x 16,384."""

DEFAULT_MAX_DECODED_BYTES = 2**30
"""Most bytes that one image, or label image, of any file format unpacks to by default: 10,000 x 10,000 pixels of 4
channels of 16 bit take 0.75 of it."""

MAX_BYTES_IN_MEMORY = 2**29
"""Most bytes that a PNG or JPEG file unpacks to, which is decoded as a whole in memory and not part by part on disk."""

MAPPED_BYTES = 32 * 2**20
"""Size from which files are read where they are looked at, and never as a whole into memory."""
