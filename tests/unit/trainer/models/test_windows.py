"""Large images window by window: the cells of the whole, each once, whatever the windows."""

import numpy as np
import pytest
from scipy import ndimage

from cellsparse_common.imaging.images import normalize, to_gray
from cellsparse_common.imaging.scores import Segmentation, cell_numbers, mean_per_cell
from cellsparse_trainer.data.fed_image import FedImage
from cellsparse_trainer.models.windows import LargeSegmentation, SeparateWindows, boxes, segment_large


class Blobs:
    """Cells are what is connected and bright; a score is a cell's mean brightness."""

    def windows(self, image):
        return SeparateWindows(image=image, find=self.segment, halo=64)

    def segment(self, image):
        labels = ndimage.label(image > 0.75)[0].astype(np.int32)
        return Segmentation(labels=labels, scores=mean_per_cell(labels, image))


def spots(shape, seed=0):
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, 4)
    return (1000 + 9000 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint16)


def fed(array, channel=None, lower=1.0, upper=99.8):
    return FedImage(array, lambda part: to_gray(part, channel), lower, upper)


def same_cells(one, other):
    """Whether two label images differ in nothing but the numbers of cells."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1] and (0, 0) in set(
        zip(*pairs, strict=True)
    )


@pytest.mark.parametrize("shape", [(500, 700), (64, 1000), (130, 131)])
@pytest.mark.parametrize("side", [64, 128, 2000])
def test_cells_are_those_of_the_whole(shape, side):
    array = spots(shape)
    whole = Blobs().segment(normalize(to_gray(array), 1, 99.8))
    found = segment_large(Blobs(), fed(array), side=side)
    assert same_cells(found.labels, whole.labels)
    assert (cell_numbers(found.labels) == np.arange(1, len(found.scores) + 1)).all()
    where = {int(found.labels.ravel()[at]): at for at in np.flatnonzero(found.labels)}
    expected = dict(zip(cell_numbers(whole.labels), whole.scores, strict=True))
    for number, score in enumerate(found.scores, 1):
        assert score == pytest.approx(expected[int(whole.labels.ravel()[where[number]])], abs=1e-6)


def test_small_cells_go_as_from_any_image():
    array = spots((300, 300), 1)
    found = segment_large(Blobs(), fed(array), side=128)
    usual = Segmentation(labels=found.labels.copy(), scores=found.scores).without_small(200)
    large = LargeSegmentation(labels=found.labels, scores=found.scores).without_small(200)
    np.testing.assert_array_equal(large.labels, usual.labels)
    np.testing.assert_array_equal(large.scores, usual.scores)


@pytest.mark.parametrize("channel", [None, 1])
def test_windows_are_fed_as_the_whole_is(channel):
    array = np.dstack([spots((90, 110), 2), spots((90, 110), 3)])
    image = fed(array, channel, 2.0, 98.0)
    whole = normalize(to_gray(array, channel), 2.0, 98.0)
    np.testing.assert_array_equal(image.read((10, 90, 64, 110)), whole[10:90, 64:110])


def test_windows_cover_an_image_once():
    seen = np.zeros((200, 333), int)
    for core, around in boxes((200, 333), 100, 30):
        seen[core[0] : core[1], core[2] : core[3]] += 1
        assert around[0] <= core[0]
        assert around[3] >= core[3]
        assert around[0] % 64 == around[2] % 64 == 0
    assert (seen == 1).all()
