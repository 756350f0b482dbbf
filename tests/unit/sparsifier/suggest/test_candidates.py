import numpy as np
import pytest
from support.scenes import scene

from cellsparse_sparsifier.suggest.candidates import MOST, Seen, find_candidates, only_known
from cellsparse_sparsifier.suggest.features import NAMES, measure
from cellsparse_sparsifier.suggest.patches import BACKGROUND, CELL


def drawn(found, index, shape, value=CELL):
    """A candidate's mask in its image."""
    mask = np.zeros(shape, bool)
    patch = found.patches[index]
    height, width = patch.values.shape
    mask[patch.y : patch.y + height, patch.x : patch.x + width] = patch.values == value
    return mask


def test_the_detector_finds_cells_without_a_model():
    image, label = scene()
    found = find_candidates("a", image)
    assert set(found.seen) == {Seen.BOTH}
    assert found.features.shape == (len(found), len(NAMES))
    assert np.isfinite(found.features).all()
    hit = set()
    for index in range(len(found)):
        mask = drawn(found, index, image.shape)
        numbers = np.unique(label[mask])
        assert (label[mask] > 0).mean() > 0.8
        hit |= set(numbers[numbers > 0].tolist())
        edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert not edge.any()
        ring = drawn(found, index, image.shape, BACKGROUND)
        assert ring.any()
        assert not (label[ring] > 0).any()
    inner = label.copy()
    inner[1:-1, 1:-1] = 0
    whole = set(np.unique(label)[1:].tolist()) - set(np.unique(inner).tolist())
    assert len(hit & whole) >= 0.8 * len(whole)
    assert found.intensity.min() > image[label == 0].mean()


def test_labelled_cells_are_known_and_never_suggested_again():
    image, label = scene(1)
    annotation = np.where((label > 0) & (label <= 5), label, -1).astype(np.int32)
    annotation[:20, :20] = np.where(annotation[:20, :20] > 0, annotation[:20, :20], 0)
    found = find_candidates("a", image, annotation)
    assert len(found.labelled) == len(np.unique(annotation[annotation > 0]))
    for index in range(len(found)):
        assert (annotation[drawn(found, index, image.shape)] < 0).all()
        assert (annotation[drawn(found, index, image.shape, BACKGROUND)] < 0).all()
    for patch, _ in found.spots:
        height, width = patch.values.shape
        place = annotation[patch.y : patch.y + height, patch.x : patch.x + width]
        assert (place[patch.values == BACKGROUND] < 0).all()
    known = only_known(found)
    assert len(known) == 0
    assert len(known.labelled) == len(found.labelled)


def test_what_only_one_side_sees_is_told_apart():
    image, label = scene(2)
    prediction = label.copy()
    missed = next(n for n in range(1, 15) if (label == n)[20:-20, 20:-20].sum() == (label == n).sum())
    prediction[label == missed] = 0
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    free = next(
        (y, x) for y in range(12, 148) for x in range(12, 148) if not label[np.hypot(rows - y, columns - x) <= 10].any()
    )
    prediction[np.hypot(rows - free[0], columns - free[1]) <= 7] = 99
    found = find_candidates("a", image, None, [prediction, label])
    masks = [drawn(found, index, image.shape) for index in range(len(found))]
    pairs = list(zip(masks, found.seen, strict=True))
    by_side = {seen: [mask for mask, who in pairs if who is seen] for seen in Seen}
    assert any((label[mask] == missed).mean() > 0.8 for mask in by_side[Seen.DETECTOR])
    assert any(mask[free] for mask in by_side[Seen.MODEL])
    agreed = [index for index, seen in enumerate(found.seen) if seen is Seen.BOTH]
    assert np.allclose(found.disagreement[agreed], 0)
    assert found.disagreement[[index for index, seen in enumerate(found.seen) if seen is Seen.MODEL]].min() > 0.9


def test_what_was_refused_is_known():
    image, _ = scene(1)
    first = find_candidates("a", image)
    annotation = np.full(image.shape, -1, np.int32)
    annotation[drawn(first, 0, image.shape)] = 0
    second = find_candidates("a", image, annotation)
    assert len(second) == len(first) - 1
    assert len(second.labelled) == 1
    assert np.allclose(second.labelled[0], first.features[0])


def test_large_label_numbers_take_no_more_memory_than_small_ones():
    image, label = scene(3)
    far = np.where(label > 0, label + 2**30, 0).astype(np.int32)
    annotation = np.where(label == 1, 2**31 - 1, -1).astype(np.int32)
    small = find_candidates("a", image, np.where(label == 1, 1, -1).astype(np.int32), [label, label])
    large = find_candidates("a", image, annotation, [far, far])
    assert np.array_equal(small.features, large.features)
    assert np.array_equal(small.disagreement, large.disagreement)


def test_many_candidates_are_thinned_by_the_seed():
    rows, columns = np.mgrid[:400, :400]
    image = ((np.sin(rows / 1.6) * np.sin(columns / 1.6)) > 0.5).astype(np.uint8) * 200
    first = find_candidates("a", image, seed=1)
    if len(first) < MOST:
        pytest.skip(f"the detector finds only {len(first)} cells")
    assert len(first) == MOST
    again, other = find_candidates("a", image, seed=1), find_candidates("a", image, seed=2)
    assert np.array_equal(first.features, again.features)
    assert not np.array_equal(first.features, other.features)


@pytest.mark.parametrize(
    "image",
    [np.zeros((20, 30), np.uint8), np.full((16, 16, 3), 7, np.uint16), np.zeros((1, 1), np.float32)],
    ids=["black", "one colour", "one pixel"],
)
def test_an_image_without_anything_has_no_candidate(image):
    found = find_candidates("a", image)
    assert len(found) == 0
    assert found.spots == ()


def test_channels_and_floats_are_fine_and_sizes_must_agree():
    image, _ = scene()
    colour = np.stack([image, image // 2, np.zeros_like(image)], axis=2)
    assert len(find_candidates("a", colour)) > 5
    assert len(find_candidates("a", image.astype(np.float32) / 7 - 3)) > 5
    with pytest.raises(ValueError, match="do not fit"):
        find_candidates("a", image, np.zeros((3, 3), np.int32))


def test_features_say_what_they_are_named_after():
    image = np.full((60, 120), 10.0, np.float32)
    label = np.zeros((60, 120), np.int32)
    rows, columns = np.mgrid[:60, :120]
    label[np.hypot(rows - 30, columns - 30) <= 10] = 1
    label[(np.abs(rows - 30) <= 3) & (np.abs(columns - 85) <= 20)] = 2
    image[label == 1], image[label == 2] = 100, 50
    features = dict(zip(NAMES, measure(image, label, around=label, diameter=20).T, strict=True))
    assert np.exp(features["log_area"]).tolist() == pytest.approx([(label == 1).sum(), (label == 2).sum()])
    assert features["eccentricity"][0] < 0.2
    assert features["eccentricity"][1] > 0.9
    assert features["mean"][0] > features["mean"][1]
    assert features["contrast"].tolist() == pytest.approx([1.0, 40 / 90], abs=0.05)
    assert features["gradient"][0] > features["gradient"][1] > 0
    assert features["neighbours"].tolist() == pytest.approx([np.log(3), np.log(3)])
