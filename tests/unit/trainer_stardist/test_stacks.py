"""StarDist3D: stacks of axes ZYX, few planes, cells flatter in voxels than wide."""

import dataclasses
import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from support.bioimageio_package import CARD, validated

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_stardist import backend, tiles
from cellsparse_stardist.config import Config, resolve
from cellsparse_stardist.crops import augment, cut, mark_likely_background
from cellsparse_stardist.data import Sampler, index_sample
from cellsparse_stardist.export import EXPORTS
from cellsparse_stardist.framework import StarDist3D, tf
from cellsparse_stardist.model import StardistModel
from cellsparse_stardist.network import build_network
from cellsparse_stardist.spacing import anisotropy, fitted
from cellsparse_stardist.targets import OUTSIDE, Stars, make_targets, rays
from cellsparse_trainer.data.background import LIKELY
from cellsparse_trainer.data.samples import Sample

GRIDS = [(1, 1, 1), (1, 2, 2), (2, 2, 2), (1, 4, 4)]


def ellipsoids(shape: tuple[int, int, int], seed: int, *, sparse: bool) -> Sample:
    """Bright ellipsoids twice as wide as deep; sparse: half of them and a frame of background are labelled."""
    rng = np.random.default_rng(seed)
    places = np.indices(shape)
    label = np.zeros(shape, np.int32)
    for number in range(1, 9):
        centre, radius = rng.integers(0, shape), rng.uniform(4, 7) * np.array([0.5, 1, 1])
        inside = (((places.T - centre) / radius) ** 2).sum(axis=-1).T < 1
        label[inside & (label == 0)] = number * 1000
    image = (np.where(label > 0, 0.8, 0.1) + 0.05 * rng.standard_normal(shape)).astype(np.float32)
    if sparse:
        known = (label > 0) & (label % 2000 == 0)
        known[:, :4] |= label[:, :4] == 0
        label = np.where(known, label, -1).astype(np.int32)
    image.setflags(write=False)
    label.setflags(write=False)
    return Sample(name=f"ellipsoids-{seed}", image=image, label=label)


def settings(**fields):
    return trainer_pb2.TrainingSettings(**{"stardist": {}, **fields})


def tiny(**own) -> Config:
    given = {"n_rays": 8, "unet_depth": 1, "unet_filters": 4, **own}
    asked = settings(
        seed=7, steps=6, crop_size=32, crop_depth=8, batch_size=2, precision="PRECISION_FLOAT32", stardist=given
    )
    return dataclasses.replace(resolve(asked, 2, stacks=True), features=8)


@pytest.fixture(scope="module")
def samples():
    return [ellipsoids((20, 40, 44), 1, sparse=True), ellipsoids((5, 20, 60), 2, sparse=True)]


@pytest.fixture(scope="module")
def trained(samples, tmp_path_factory):
    """Six steps in one go; the third step's checkpoint, and the model as it was exported at the end."""
    checkpoint, folder = tmp_path_factory.mktemp("checkpoint"), tmp_path_factory.mktemp("model")
    training = backend.create(tiny(), samples, "cpu")
    losses = [training.train_step(step) for step in range(3)]
    training.save(checkpoint)
    losses += [training.train_step(step) for step in range(3, 6)]
    model = training.model()
    model.stock.thresholds = {"prob": 0.45, "nms": 0.3}
    model.export(folder)
    return SimpleNamespace(losses=losses, model=model, checkpoint=checkpoint, folder=folder)


def test_resumed_training_equals_uninterrupted(trained, samples):
    training = backend.create(tiny(), samples, "cpu")
    training.load(trained.checkpoint)
    assert [training.train_step(step) for step in range(3, 6)] == trained.losses[3:]
    for one, other in zip(
        trained.model.stock.keras_model.get_weights(),
        training.model().stock.keras_model.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_an_exported_model_opens_here_and_in_stock_stardist(trained, samples):
    opened = backend.open_model(trained.folder, "cpu")
    stock = StarDist3D(None, name="stardist", basedir=str(trained.folder))
    assert stock.thresholds._asdict() == {"prob": 0.45, "nms": 0.3}
    assert stock.config.n_rays == 8
    assert tuple(stock.config.rays_json["kwargs"]["anisotropy"]) == tuple(stock.config.anisotropy)
    saved = json.loads((trained.folder / "config.json").read_text())["config"]
    assert saved["anisotropy"] == list(stock.config.anisotropy)
    assert (saved["grid_z"], saved["grid"], saved["grid"]) == tuple(stock.config.grid)
    # Six steps find nothing at 0.45; what lies above the 90th percentile is segmented instead.
    image = samples[0].image
    prob, _ = stock.predict(image)
    threshold = float(np.quantile(prob, 0.9))
    for model in (trained.model.stock, opened.stock, stock):
        model.thresholds = {"prob": threshold, "nms": 0.3}
    expected = trained.model.predict(image)
    assert expected.max() > 1
    assert expected.dtype == np.int32
    np.testing.assert_array_equal(opened.predict(image), expected)
    np.testing.assert_array_equal(stock.predict_instances(image)[0], expected)
    trained.model.stock.thresholds = {"prob": 0.45, "nms": 0.3}


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 30, 5), (9, 17, 33)])
def test_any_stack_is_segmented(trained, shape):
    labels = trained.model.predict(np.zeros(shape, np.float32))
    assert labels.shape == shape
    assert labels.dtype == np.int32


def test_exports_of_stacks(trained, tmp_path):
    for name in ("native", "saved_model"):
        (tmp_path / name).mkdir()
        EXPORTS[name](trained.folder, tmp_path / name, CARD)
    assert "StarDist3D(None" in (tmp_path / "native" / "README.md").read_text()
    network = tf.saved_model.load(str(tmp_path / "saved_model")).signatures["serving_default"]
    assert network(tf.zeros((1, 8, 16, 12, 1)))["output"].shape == (1, 8, 16, 12, 1 + 8)


def test_a_package_of_stacks_is_valid_and_reproduces_its_test_output(trained, tmp_path):
    (tmp_path / "package").mkdir()
    EXPORTS["bioimageio"](trained.folder, tmp_path / "package", CARD)
    weights, stack, expected = validated(tmp_path / "package", tmp_path / "unpacked")
    assert stack.shape[1] < stack.shape[2]
    with zipfile.ZipFile(weights) as archive:
        archive.extractall(tmp_path / "bundle")
    network = tf.saved_model.load(str(tmp_path / "bundle")).signatures["serving_default"]
    np.testing.assert_allclose(network(tf.constant(stack))["output"].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("own", [{"grid": 2}, {"grid": 4}, {"grid": 1, "unet_depth": 2}], ids=str)
def test_tiles_equal_the_whole(own, monkeypatch):
    image = ellipsoids((16, 50, 90), 3, sparse=False).image
    config = fitted(tiny(**own), np.array([[4, 8, 8]]), [])
    model = StardistModel(build_network(config, 4.0), config)
    prob, dist = model.stock.predict(image, n_tiles=(1, 1, 1), show_tile_progress=False)
    model.stock.thresholds = {"prob": float(np.quantile(prob, 0.97)), "nms": 0.3}
    whole = model.predict(image)
    assert whole.max() > 1
    overlap = tiles.reach(model.stock.config)
    assert tiles.tiles(image.shape, overlap) == (1, 1, 1)
    measured = [
        max(sides) for sides in model.stock._compute_receptive_field(img_size=[64 if o < 32 else 128 for o in overlap])
    ]
    pooled = [step * 2**config.unet_depth for step in config.grids]
    assert all(m - p < o <= m + 2 for m, p, o in zip(measured, pooled, overlap, strict=True))
    monkeypatch.setattr(tiles, "TILE_VOXELS", 16 * 50 * 80)
    count = tiles.tiles(image.shape, overlap)
    assert max(count) > 1
    tiled = model.stock.predict(image, n_tiles=count, show_tile_progress=False)
    np.testing.assert_allclose(tiled[0], prob, atol=1e-5)
    np.testing.assert_allclose(tiled[1], dist, atol=1e-4)
    np.testing.assert_array_equal(model.predict(image), whole)


@pytest.mark.parametrize("shape", [(100, 4000, 4000), (3, 100_000, 50), (2000, 2000, 2000), (5000, 3, 3)])
def test_tiles_of_large_stacks_have_a_bound(shape):
    overlap = (24, 46, 46)
    sides = [-(-n // count) for n, count in zip(shape, tiles.tiles(shape, overlap), strict=True)]
    assert np.prod([min(s + 2 * o, n) for s, o, n in zip(sides, overlap, shape, strict=True)]) <= tiles.TILE_VOXELS


def test_tiles_are_not_smaller_than_what_the_network_sees_around_them():
    assert max(tiles.tiles((2000, 2000, 2000), (200, 200, 200))) == 10


@pytest.mark.parametrize("grid", GRIDS)
def test_targets_of_a_whole_stack_are_stardists(samples, grid):
    from stardist.models.model3d import StarDistData3D  # after `framework`, which chooses the Keras that it needs

    for sample in (ellipsoids((16, 32, 32), 5, sparse=False), ellipsoids((16, 32, 32), 6, sparse=True)):
        # Small numbers: stock code takes 16 bits.
        label = np.where(sample.label > 0, sample.label // 1000, sample.label)
        stock = StarDistData3D(
            [sample.image], [label], batch_size=1, rays=rays(12, (2.0, 1.0, 1.0)), length=1, patch_size=label.shape,
            grid=grid, anisotropy=(2.0, 1.0, 1.0),
        )  # fmt: skip
        _, (stock_prob, stock_dist) = stock[0]
        prob, dist = make_targets(sample.label, (0, 0, 0), Stars(grid=grid, n_rays=12, anisotropy=(2.0, 1.0, 1.0)))
        np.testing.assert_array_equal(prob, stock_prob[0, ..., 0])
        np.testing.assert_array_equal(dist, stock_dist[0, ..., :-1])


@pytest.mark.parametrize("grid", GRIDS)
def test_a_cell_cut_by_the_crop_keeps_its_real_edge(grid):
    sample = ellipsoids((20, 48, 48), 3, sparse=False)
    index = index_sample(sample.image, sample.label)
    stars = Stars(grid=grid, n_rays=8, anisotropy=(2.0, 1.0, 1.0))
    whole = make_targets(sample.label, (0, 0, 0), stars)
    for corner in [(0, 0, 0), (4, 8, 12), (12, 16, 16)]:
        margin = index.overhang(corner, (8, 32, 32), grid)
        crop = cut(sample.image, sample.label, corner, (8, 32, 32), margin)
        assert crop.image.shape == (8, 32, 32)
        window = tuple(slice(c // g, (c + s) // g) for c, s, g in zip(corner, (8, 32, 32), grid, strict=True))
        for one, other in zip(make_targets(crop.label, crop.margin, stars), whole, strict=True):
            np.testing.assert_array_equal(one, other[window])


def test_outside_the_stack_is_not_labelled():
    sample = ellipsoids((5, 20, 60), 2, sparse=False)
    crop = augment(cut(sample.image, sample.label, (-2, -6, 8), (8, 32, 32), (0, 0, 0)), np.random.default_rng(3))
    prob, _ = make_targets(crop.label, crop.margin, Stars(grid=(1, 1, 1), n_rays=8))
    assert ((prob == -1) == (crop.label == OUTSIDE)).all()
    assert (crop.label == OUTSIDE).sum() == 8 * 32 * 32 - 5 * 20 * 32


def test_a_batch_is_a_function_of_seed_and_step(samples):
    one, two = Sampler(samples, tiny()), Sampler(samples, tiny())
    for step in (0, 3):
        for name in ("image", "prob", "dist"):
            np.testing.assert_array_equal(getattr(one.batch(step), name), getattr(two.batch(step), name))
    batch = one.batch(4)
    assert batch.image.shape == (2, 8, 32, 32, 1)
    grid = one.config.grids
    assert batch.prob.shape == (2, 8 // grid[0], 32 // grid[1], 32 // grid[2], 1)
    assert batch.dist.shape == (*batch.prob.shape[:-1], 8)
    assert (batch.image != one.batch(3).image).any()
    passed = [one.anchor(i) for i in range(one.cells)]
    assert len(set(passed)) == one.cells == sum(len(np.unique(s.label[s.label > 0])) for s in samples)


def test_stacks_are_flipped_along_z_and_turned_in_their_planes_only(samples):
    image = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None] * 10, (8, 32, 32))
    label = np.zeros(image.shape, np.int32)
    crop = cut(image, label, (0, 0, 0), (8, 32, 32), (0, 0, 0))
    rising = {bool(augment(crop, np.random.default_rng(seed)).image.mean(axis=(1, 2))[0] < 5) for seed in range(20)}
    assert rising == {True, False}


def test_dark_voxels_count_as_background():
    sample = ellipsoids((12, 40, 40), 1, sparse=True)
    ground = index_sample(sample.image, sample.label).background_model
    crop = cut(sample.image, sample.label, (0, 4, 4), (8, 32, 32), (1, 3, 3))
    assumed = mark_likely_background(crop, ground, 1.0, np.random.default_rng(0)).label
    changed = assumed != crop.label
    assert changed.sum() > 100
    assert (assumed[changed] == LIKELY).all()
    assert (crop.label[changed] == -1).all()


def test_anisotropy_comes_from_the_pixel_size_or_else_from_the_cells():
    extents = np.array([[4, 10, 8], [4, 10, 10], [2, 30, 10]])
    assert anisotropy(extents, [(), (1.0, 1.0, 1.0)]) == (2.5, 1.0, 1.0)
    assert anisotropy(extents, [(), (2.0, 0.5, 0.5), (2.0, 0.5, 0.5)]) == (4.0, 1.0, 1.0)
    assert anisotropy(np.zeros((0, 3)), [()]) == (1.0, 1.0, 1.0)


def test_planes_share_the_pixels_grid_where_cells_are_round_and_the_crop_allows_it():
    flat, round_ = np.array([[4, 8, 8]]), np.array([[8, 8, 8]])
    assert fitted(tiny(), flat, []).grids == (1, 2, 2)
    assert fitted(tiny(), round_, []).grids == (2, 2, 2)
    assert fitted(tiny(unet_depth=3), round_, []).grids == (1, 2, 2)
    config = fitted(tiny(), flat, [])
    assert fitted(config, round_, []) is config
    assert Config.from_json(config.to_json()) == config


def test_presets_for_stacks():
    paper = resolve(settings(preset="PRESET_PAPER"), 3, stacks=True)
    assert (paper.n_rays, paper.grid, paper.unet_depth, paper.unet_filters, paper.features) == (96, 2, 2, 32, 128)
    assert paper.crop == (48, 96, 96)
    assert paper.likely_background == 0
    fast = resolve(settings(), 3, stacks=True)
    assert fast.plan.crop_depth is not None
    assert fast.n_rays == 64
    assert resolve(settings(), 3).plan.crop_depth is None
    assert resolve(settings(crop_depth=24), 3, stacks=True).crop[0] == 24


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop_depth": 6}, "crop_depth is 6; grid 1 along z and unet_depth 2 allow multiples of 4"),
        ({"crop_size": 48, "stardist": {"grid": 4, "unet_depth": 3}}, "crop_size is 48; grid 4 and unet_depth 3"),
    ],
)
def test_a_crop_that_does_not_fit_the_network_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        resolve(settings(**fields), 4, stacks=True)


@pytest.mark.parametrize(
    ("name", "value"), [("grid_z", 3), ("anisotropy", (0.5, 1.0, 1.0)), ("anisotropy", (1.0, 1.0))]
)
def test_values_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; allowed"):
        dataclasses.replace(tiny(), **{name: value})
