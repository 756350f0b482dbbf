import dataclasses
from pathlib import Path

import numpy as np
import pytest
from cellpose.resnet_torch import CPnet
from unit.trainer_cellpose.cellpose_samples import disc_sample, small_config

from cellsparse_cellpose import model
from cellsparse_cellpose.inference import InferenceNetwork, prepare
from cellsparse_cellpose.instances import tidy
from cellsparse_cellpose.network import build_network
from cellsparse_cellpose.targets import make_targets
from cellsparse_common.imaging.scores import Segmentation
from cellsparse_common.imaging.types import Floats
from cellsparse_trainer.data.fed_image import FedImage
from cellsparse_trainer.models.outline_refinement import OutlineLevel


def small_model(diameter: float = 12.0, **changes: object) -> model.CellposeModel:
    config = small_config(**changes)
    return model.CellposeModel(build_network(config), config, diameter)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (17, 31), (230, 60)])
@pytest.mark.parametrize("diameter", [6.0, 12.0, 90.0])
def test_any_size_gives_labels_of_that_size(shape: tuple[int, int], diameter: float) -> None:
    image = np.random.default_rng(1).random(shape, np.float32)
    label = small_model(diameter, cellprob_threshold=-6.0).predict(image)
    assert label.shape == shape
    assert label.dtype == np.int32
    np.testing.assert_array_equal(np.unique(np.append(label, 0)), np.arange(label.max() + 1))


def test_no_cell_is_all_zero() -> None:
    label = small_model(cellprob_threshold=6.0).predict(np.zeros((40, 40), np.float32))
    assert not label.any()


def test_perfect_flows_give_the_cells_back(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = disc_sample()
    targets = make_targets(sample.label)
    output = np.zeros((sample.label.size, 3), np.float32)
    output[:, 2] = np.where(sample.label.ravel() > 0, 5, -5)
    output[targets.inside, :2] = 5 * targets.flow.T
    perfect = output.reshape(*sample.label.shape, 3)
    monkeypatch.setattr(model, "run", lambda *_, **__: perfect)
    label = small_model(12.0).predict(sample.image)
    assert label.max() == 2
    np.testing.assert_array_equal(label > 0, sample.label > 0)
    scores = small_model(12.0).segment(sample.image).scores
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-5))] * 2, atol=1e-6)


def test_small_cells_go_and_their_neighbours_stay() -> None:
    # Labels with gaps, as the flow check leaves them, and the small cell last: stock Cellpose would drop label 4.
    masks = np.zeros((20, 20), np.uint16)
    for name, rows in ((1, slice(0, 4)), (2, slice(5, 9)), (4, slice(10, 14))):
        masks[rows, :8] = name
    masks[16:18, 16:18] = 5
    label = tidy(masks, 15)
    np.testing.assert_array_equal(label > 0, (masks > 0) & (masks != 5))
    assert label.max() == 3


def test_holes_are_filled_and_an_image_full_of_cells_keeps_them() -> None:
    masks = np.ones((10, 10), np.uint16)
    masks[:, 5:] = 9
    masks[4:6, 2] = 0
    label = tidy(masks, 15)
    np.testing.assert_array_equal(label, np.repeat([[1] * 5 + [2] * 5], 10, axis=0))


def discs(radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:160, :160]
    label = np.zeros((160, 160), np.int32)
    for number, (row, column) in enumerate(((40, 40), (40, 120), (120, 40), (120, 120)), 1):
        label[np.hypot(rows - row, columns - column) <= radius] = number
    return label


@pytest.mark.parametrize(
    ("passes", "radius", "expected"),
    [
        (0, 24, [12.0]),  # as the dataset's
        (2, 6, [12.0]),  # they have that diameter
        (1, 20, [12.0, 40.0]),
        (2, 20, [12.0, 40.0]),  # the second pass finds the same cells, so a third would, too
        (2, 35, [12.0, 48.0]),  # at most four times the dataset's
        (1, 2, [12.0, 6.0]),  # at least half of it
    ],
)
def test_an_image_is_segmented_anew_with_its_own_cells_at_the_mean_diameter(
    monkeypatch: pytest.MonkeyPatch, passes: int, radius: int, expected: list[float]
) -> None:
    asked = []

    def segment(self: model.CellposeModel, image: np.ndarray, diameter: float) -> Segmentation:
        asked.append(diameter)
        return Segmentation(labels=discs(radius), scores=np.ones(4, np.float32))

    monkeypatch.setattr(model.CellposeModel, "_segment_as", segment)
    small_model(12.0, size_passes=passes).segment(np.zeros((160, 160), np.float32))
    np.testing.assert_allclose(asked, expected, rtol=0.05)


def test_too_few_cells_say_nothing_about_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def segment(self: model.CellposeModel, image: np.ndarray, diameter: float) -> Segmentation:
        asked.append(diameter)
        labels = discs(20)
        labels[labels > 2] = 0
        return Segmentation(labels=labels, scores=np.ones(2, np.float32))

    monkeypatch.setattr(model.CellposeModel, "_segment_as", segment)
    small_model(12.0, size_passes=2).predict(np.zeros((160, 160), np.float32))
    assert asked == [12.0]


@pytest.mark.parametrize(
    ("trained", "service", "half"),
    [("bfloat16", "auto", True), ("float32", "auto", False), ("bfloat16", "float32", False)],
)
def test_a_model_predicts_in_the_format_of_its_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trained: str, service: str, half: bool
) -> None:
    monkeypatch.setattr("cellsparse_torch.devices.cpu_has_bfloat16", lambda: True)
    monkeypatch.setenv("CELLSPARSE_PRECISION", service)
    config = small_config()
    config = dataclasses.replace(config, plan=dataclasses.replace(config.plan, precision=trained))
    model.CellposeModel(build_network(config), config, 12.0).export(tmp_path)
    halves = []

    def noting(network: CPnet, *, half: bool) -> InferenceNetwork:
        halves.append(half)
        return prepare(network, half=half)

    monkeypatch.setattr(model, "prepare", noting)
    model.open_model(tmp_path, "cpu").predict(disc_sample().image)
    assert halves == [half]


@pytest.mark.parametrize("refine_outlines", [True, False])
def test_the_level_of_outlines_is_fitted_kept_and_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refine_outlines: bool
) -> None:
    seen = []

    def noting(image: Floats, found: Segmentation, level: float | None) -> Segmentation:
        seen.append((image.shape, level))
        return found

    monkeypatch.setattr(model, "fit_level", lambda samples, predict: OutlineLevel(level=0.35))
    monkeypatch.setattr(model, "refine", noting)
    tuned = small_model(refine_outlines=refine_outlines)
    sample = disc_sample()
    tuned.fit_outlines([sample])
    tuned.export(tmp_path)
    level = OutlineLevel(level=0.35) if refine_outlines else None
    for each in (tuned, model.open_model(tmp_path, "cpu")):
        each.segment(sample.image)
        assert seen.pop() == (sample.image.shape, level)
        each.windows(FedImage(sample.image, lambda part: part, 0, 100)).segment((4, 30, 2, 40))
        assert seen.pop() == ((26, 38), level)
