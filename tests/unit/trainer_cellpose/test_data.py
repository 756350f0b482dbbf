import numpy as np
from cellpose import dynamics, utils
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.trainer_cellpose.cellpose_samples import disc_sample

from cellsparse_cellpose.data import cut, make_targets, place
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.data.target_cache import DiskCache


def dense_flow(label: np.ndarray) -> np.ndarray:
    return dynamics.masks_to_flows_cpu(np.where(label > 0, label, 0))[0].astype(np.float32)


def test_flows_are_cellposes_own_on_labelled_cells_and_nowhere_else() -> None:
    sample = disc_sample()
    targets = make_targets(sample.label)
    flow = np.zeros((2, sample.label.size), np.float32)
    flow[:, targets.inside] = targets.flow
    np.testing.assert_array_equal(flow.reshape(2, *sample.label.shape), dense_flow(sample.label))
    assert set(targets.inside) == set(np.flatnonzero(sample.label > 0))


def test_the_diameter_is_cellposes_over_labelled_cells_only() -> None:
    label = disc_sample().label
    assert make_targets(label).diameter == utils.diameters(np.where(label > 0, label, 0))[0]


def test_centers_lie_in_their_cells() -> None:
    sample = disc_sample()
    centers = make_targets(sample.label).centers
    np.testing.assert_array_equal(centers, [[20, 20], [38, 50]])


def test_an_image_that_is_one_single_cell_has_targets() -> None:
    targets = make_targets(np.full((9, 9), 4, np.int32))
    assert targets.inside.size == 81
    assert not targets.background


def test_labels_without_a_cell_have_no_flow() -> None:
    targets = make_targets(np.where(disc_sample().label == 0, 0, -1).astype(np.int32))
    assert targets.inside.size == 0
    assert targets.diameter == 0
    assert targets.background == (disc_sample().label == 0).sum()


def test_a_crop_that_only_shifts_is_the_image_itself() -> None:
    sample = disc_sample((64, 64))
    targets = make_targets(sample.label)
    crop = cut(sample, targets, place(np.array([0, 0]), np.array([0, 0]), scale=1, angle=0, mirrored=False), 64)
    np.testing.assert_array_equal(crop.image, sample.image)
    np.testing.assert_array_equal(crop.label, np.sign(sample.label))
    np.testing.assert_array_equal(crop.flow, dense_flow(sample.label))


def test_flows_turn_with_the_image() -> None:
    sample = disc_sample((64, 64))
    targets = make_targets(sample.label)
    corner = {(1, False): (63, 0), (0, True): (0, 63)}  # where the pixel (0, 0) comes to lie, (y, x)
    for (quarters, mirrored), target in corner.items():
        matrix = place(np.array([0, 0]), np.array(target), scale=1, angle=-quarters * np.pi / 2, mirrored=mirrored)
        crop = cut(sample, targets, matrix, 64)
        label = np.rot90(sample.label, quarters) if not mirrored else sample.label[:, ::-1]
        np.testing.assert_array_equal(crop.label, np.sign(label))
        np.testing.assert_allclose(crop.flow, dense_flow(np.ascontiguousarray(label)), atol=2e-2)


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.sampled_from([32, 48, 64]),
    scale=st.floats(0.2, 5),
    angle=st.floats(0, 2 * np.pi),
    mirrored=st.booleans(),
    target=st.tuples(st.floats(-5, 70), st.floats(-5, 70)),
)
def test_what_lies_outside_the_image_carries_no_supervision(
    shape: tuple[int, int], size: int, scale: float, angle: float, mirrored: bool, target: tuple[float, float]
) -> None:
    label = np.ones(shape, np.int32)
    label[:, : shape[1] // 2] = 0
    sample = Sample(name="full", image=np.ones(shape, np.float32), label=label)
    anchor = np.array([shape[0] // 2, shape[1] // 2])
    matrix = place(anchor, np.array(target), scale=scale, angle=angle, mirrored=mirrored)
    crop = cut(sample, make_targets(label), matrix, size)
    rows, columns = np.mgrid[:size, :size].reshape(2, -1)
    x, y = np.linalg.solve(matrix[:, :2], np.stack([columns, rows]) - matrix[:, 2:])
    # Half a pixel around the image still has the edge pixel as its nearest; a hundredth more is rounding.
    beyond = (x < -0.51) | (y < -0.51) | (x > shape[1] - 0.49) | (y > shape[0] - 0.49)
    within = (x > -0.49) & (y > -0.49) & (x < shape[1] - 0.51) & (y < shape[0] - 0.51)
    assert (crop.label.ravel()[beyond] == -1).all()
    assert (crop.label.ravel()[within] >= 0).all()


def test_the_given_arrays_stay_as_they_are() -> None:
    sample = disc_sample()
    before = sample.label.copy(), sample.image.copy()
    cut(
        sample,
        make_targets(sample.label),
        place(np.array([9, 9]), np.array([3, 3]), scale=2, angle=1, mirrored=True),
        32,
    )
    np.testing.assert_array_equal(sample.label, before[0])
    np.testing.assert_array_equal(sample.image, before[1])


def test_label_sets_with_the_same_cells_share_flows(tmp_path, monkeypatch) -> None:
    made, flows = [], dynamics.masks_to_flows_cpu

    def counted(cells):
        made.append(cells)
        return flows(cells)

    monkeypatch.setattr(dynamics, "masks_to_flows_cpu", counted)
    disk_cache = DiskCache(tmp_path, 2**20)
    expected = make_targets(disc_sample().label)
    for background in (True, False):
        found = make_targets(disc_sample(background=background).label, disk_cache=disk_cache)
        np.testing.assert_array_equal(found.flow, expected.flow)
        np.testing.assert_array_equal(found.centers, expected.centers)
        assert bool(found.background) == background
    assert len(made) == 2
    make_targets(np.where(disc_sample().label == 7, -1, disc_sample().label), disk_cache=disk_cache)
    assert len(made) == 3
