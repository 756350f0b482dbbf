import numpy as np
from cellpose import dynamics, utils
from unit.trainer_cellpose.cellpose_samples import disc_sample

from cellsparse_cellpose.targets import make_targets
from cellsparse_torch.flows import targets
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


def test_cells_are_numbered_in_the_order_of_their_labels() -> None:
    label = np.array([[-1, 70000, 0, 3], [9, 9, -1, 3]], np.int32)
    np.testing.assert_array_equal(targets._renumber(label), [[0, 3, 0, 1], [2, 2, 0, 1]])
    np.testing.assert_array_equal(targets._renumber(label[:1, 1:2]), [[1]])
    np.testing.assert_array_equal(targets._renumber(label[:1, :1]), [[0]])
    assert targets._renumber(label[:, ::-1]).dtype == np.int32
    np.testing.assert_array_equal(targets._renumber(label[:, ::-1]), [[1, 0, 3, 0], [1, 0, 2, 2]])
