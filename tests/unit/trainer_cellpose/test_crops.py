import numpy as np
from cellpose import dynamics
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.trainer_cellpose.cellpose_samples import disc_sample

from cellsparse_cellpose.targets import make_targets
from cellsparse_torch.flows.crops import affine_map, cut
from cellsparse_trainer.data.samples import Sample


def dense_flow(label: np.ndarray) -> np.ndarray:
    return dynamics.masks_to_flows_cpu(np.where(label > 0, label, 0))[0].astype(np.float32)


def test_a_crop_that_only_shifts_is_the_image_itself() -> None:
    sample = disc_sample((64, 64))
    targets = make_targets(sample.label)
    crop = cut(sample, targets, affine_map(np.array([0, 0]), np.array([0, 0]), scale=1, angle=0, mirrored=False), 64)
    np.testing.assert_array_equal(crop.image, sample.image)
    np.testing.assert_array_equal(crop.label, np.sign(sample.label))
    np.testing.assert_array_equal(crop.flow, dense_flow(sample.label))


def test_flows_turn_with_the_image() -> None:
    sample = disc_sample((64, 64))
    targets = make_targets(sample.label)
    corner = {(1, False): (63, 0), (0, True): (0, 63)}  # where the pixel (0, 0) comes to lie, (y, x)
    for (quarters, mirrored), target in corner.items():
        matrix = affine_map(np.array([0, 0]), np.array(target), scale=1, angle=-quarters * np.pi / 2, mirrored=mirrored)
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
    matrix = affine_map(anchor, np.array(target), scale=scale, angle=angle, mirrored=mirrored)
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
        affine_map(np.array([9, 9]), np.array([3, 3]), scale=2, angle=1, mirrored=True),
        32,
    )
    np.testing.assert_array_equal(sample.label, before[0])
    np.testing.assert_array_equal(sample.image, before[1])
