"""A process that decodes images, in which some codecs are broken: the first pixel says how."""

import ctypes
import dataclasses
import os
import sys
import time

import numpy as np

from cellsparse_common.imaging import decoder_child, images

SOUND, CRASH, HANG, HOARD, WIDEN, DIE = range(6)
_real = images.decode_here


def decode_here(data, check, **how):
    found = _real(data, check, **how)
    what = int(found.array.flat[0])
    if what == CRASH:
        ctypes.string_at(0)
    if what == HANG:
        time.sleep(3600)
    if what == HOARD:
        kept = [np.ones(2**24, np.uint8) for _ in range(1000)]
        assert kept
    if what == WIDEN:
        return dataclasses.replace(found, array=np.zeros((1000, 1000), np.uint8))
    if what == DIE:
        os.kill(os.getppid(), 9)
        time.sleep(3600)
    return found


if __name__ == "__main__":
    images.decode_here = decode_here
    sys.exit(decoder_child.main())
