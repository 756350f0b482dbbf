import contextlib
import json

import numpy as np
import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_stardist import backend
from cellsparse_stardist.framework import StarDist2D, tf
from cellsparse_stardist.model import StardistModel
from cellsparse_trainer.data.samples import Sample
from cellsparse_trainer.models.outline_refinement import OutlineLevel, refined


def weights(training):
    return training.model().stock.keras_model.get_weights()


def train(training, steps):
    return [training.train_step(step) for step in steps]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_training_equals_uninterrupted(tiny, sparse_samples, tmp_path, precision):
    if precision == "bfloat16" and not backend.has_bfloat16("cpu"):
        pytest.skip("this CPU does not compute in bfloat16")
    config = tiny(weight_decay=0.1, precision=precision)
    whole = backend.create(config, sparse_samples, "cpu")
    losses = train(whole, range(6))
    first = backend.create(config, sparse_samples, "cpu")
    assert train(first, range(3)) == losses[:3]
    first.save(tmp_path)
    second = backend.create(config, sparse_samples, "cpu")
    second.load(tmp_path)
    assert train(second, range(3, 6)) == losses[3:]
    for one, other in zip(weights(whole), weights(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_first_weights_depend_on_the_seed_only(tiny, sparse_samples):
    one, two = (weights(backend.create(tiny(), sparse_samples, "cpu")) for _ in range(2))
    other = weights(backend.create(tiny(seed=8), sparse_samples, "cpu"))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert any((a != b).any() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("initialization", ["glorot", "he"])
def test_fresh_weights_have_the_variance_of_their_source(tiny, sparse_samples, initialization):
    """Glorot's is 2 / (inputs + outputs), He's 2 / inputs; the outputs' weights are Glorot's in any case."""
    config = tiny(initialization=initialization, unet_filters=32, features=64)
    network = backend.create(config, sparse_samples, "cpu").model().stock.keras_model
    for layer in network.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            *window, inputs, outputs = kernel.shape
            he = initialization == "he" and layer.name not in ("prob", "dist")
            total = inputs if he else inputs + outputs
            assert kernel.size < 1000 or kernel.var() == pytest.approx(2 / (np.prod(window) * total), rel=0.15)
            assert (bias == bias[0]).all()


def test_adam_is_keras_adam(tiny, sparse_samples):
    config = tiny(
        schedule="constant",
        warmup_steps=0,
        dist_rate=1.0,
        dist_loss="absolute",
        dist_focus=1.0,
        gradient_limit=0.0,
        learning_rate=1e-3,
        precision="float32",
    )
    training = backend.create(config, sparse_samples, "cpu")
    stock = backend.create(config, sparse_samples, "cpu").model().stock
    stock.config.train_background_reg = 0
    stock.prepare_for_training(tf.keras.optimizers.Adam(config.plan.learning_rate))
    for step in range(3):
        batch = training.batches.batch(step)
        target = np.concatenate([batch.dist, np.maximum(batch.prob, 0)], axis=-1)
        stock.keras_model.train_on_batch(batch.image, (batch.prob, target))
        training.train_step(step)
    for ours, theirs in zip(weights(training), stock.keras_model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_bfloat16_gives_nearly_the_losses_of_float32(tiny, sparse_samples):
    """Also where the network is sure of itself: in bfloat16 a probability of 0.999 is 1."""
    if not backend.has_bfloat16("cpu"):
        pytest.skip("this CPU does not compute in bfloat16")
    found = []
    for precision in ("float32", "bfloat16"):
        config = tiny(precision=precision, unet_filters=16, features=32)
        training = backend.create(config, sparse_samples, "cpu")
        network = training.model().stock.keras_model
        bias = network.get_layer("prob").bias
        bias.assign(np.full(bias.shape, 20.0))
        found.append(train(training, [0])[0])
        assert {weight.numpy().dtype for weight in network.weights} == {np.dtype(np.float32)}
    assert found[0] == pytest.approx(found[1], rel=0.02)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("trained", "service", "half"),
    [("bfloat16", "auto", True), ("float32", "auto", False), ("bfloat16", "float32", False)],
)
def test_a_model_predicts_in_the_format_of_its_training(
    tiny, sparse_samples, tmp_path, monkeypatch, trained, service, half
):
    backend.create(tiny(), sparse_samples, "cpu").model().export(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"precision": "float32"', f'"precision": "{trained}"'))
    used = []

    def noting(wanted):
        used.append(wanted)
        return contextlib.nullcontext()

    monkeypatch.setattr("cellsparse_stardist.cpu_bfloat16.cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr("cellsparse_stardist.model.bfloat16", noting)
    monkeypatch.setenv("CELLSPARSE_PRECISION", service)
    backend.open_model(tmp_path, "cpu").predict(sparse_samples[0].image)
    assert set(used) == {half}


def test_bfloat16_predicts_nearly_what_float32_does(tiny, sparse_samples):
    if not backend.has_bfloat16("cpu"):
        pytest.skip("this CPU does not compute in bfloat16")
    stock = backend.create(tiny(unet_filters=16, features=32), sparse_samples, "cpu").model().stock
    image = sparse_samples[0].image[np.newaxis, ..., np.newaxis]
    found = []
    for half in (False, True):
        StardistModel(stock, tiny(), half=half)  # replaces how the network predicts
        found.append(stock.keras_model.predict(image))
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=0.05, atol=0.02)
        assert (one != other).any()


def test_long_gradients_are_shortened(tiny, sparse_samples, tmp_path):
    """After the first step Adam's mean of gradients is a tenth of the gradient."""
    training = backend.create(tiny(gradient_limit=1e-3, precision="float32"), sparse_samples, "cpu")
    train(training, [0])
    training.save(tmp_path)
    with np.load(tmp_path / "state.npz") as state:
        length = np.sqrt(sum(np.square(state[name]).sum() for name in state if name.startswith("first")))
    assert length == pytest.approx(1e-4, rel=1e-3)


def test_an_exported_model_opens_here_and_in_stock_stardist(tiny, sparse_samples, tmp_path):
    training = backend.create(tiny(average_rays=False, edge_margin=2, test_flips=False), sparse_samples, "cpu")
    train(training, range(4))
    model = training.model()
    model.stock.thresholds = {"prob": 0.45, "nms": 0.3}
    model.export(tmp_path)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "config.json",
        "stardist/config.json",
        "stardist/weights_best.h5",
        "stardist/thresholds.json",
    }
    opened = backend.open_model(tmp_path, "cpu")
    stock = StarDist2D(None, name="stardist", basedir=str(tmp_path))
    assert stock.thresholds._asdict() == json.loads((tmp_path / "stardist/thresholds.json").read_text())
    assert stock.thresholds._asdict() == {"prob": 0.45, "nms": 0.3}
    image = sparse_samples[0].image
    expected = model.predict(image)
    np.testing.assert_array_equal(opened.predict(image), expected)
    np.testing.assert_array_equal(stock.predict_instances(image)[0], expected)


def test_it_learns_and_predicts_disks(tiny, sparse_samples):
    training = backend.create(
        tiny(
            unet_filters=8,
            features=16,
            n_rays=16,
            batch_size=4,
            steps=150,
            learning_rate=5e-3,
            dist_rate=10.0,
            average_rays=False,
            edge_margin=2,
            refine_outlines=False,
            test_flips=False,
        ),
        sparse_samples,
        "cpu",
    )
    losses = train(training, range(150))
    assert np.mean([loss["loss"] for loss in losses[-10:]]) < 0.7 * np.mean([loss["loss"] for loss in losses[:10]])
    model = training.model()
    model.tune(sparse_samples)
    labels = model.predict(sparse_samples[0].image)
    assert labels.dtype == np.int32
    assert labels.shape == sparse_samples[0].image.shape
    assert labels.max() >= 2
    assert sorted(np.unique(labels)) == list(range(labels.max() + 1))
    found = model.segment(sparse_samples[0].image)
    stock, stars = model.stock.predict_instances(sparse_samples[0].image)
    for number, score in enumerate(found.scores, start=1):
        (same,) = np.unique(stock[found.labels == number])
        assert score == pytest.approx(stars["prob"][same - 1], abs=1e-5)
    assert (found.scores >= model.thresholds.prob).all()
    assert (found.scores <= 1).all()


@pytest.mark.parametrize("fit_sizes", [True, False])
def test_fitted_sizes_are_in_the_weights(tiny, sparse_samples, tmp_path, monkeypatch, fit_sizes):
    """Stock StarDist opens the exported weights and so finds cells of the same size."""
    monkeypatch.setattr("cellsparse_stardist.model.size_factor", lambda samples, predict: 1.25)
    training = backend.create(tiny(fit_sizes=fit_sizes), sparse_samples, "cpu")
    before = training.model().stock.keras_model.predict(sparse_samples[0].image[np.newaxis, ..., np.newaxis])
    training.model().tune(sparse_samples)
    training.model().export(tmp_path / "model")
    stock = StarDist2D(None, name="stardist", basedir=str(tmp_path / "model"))
    after = stock.keras_model.predict(sparse_samples[0].image[np.newaxis, ..., np.newaxis], verbose=0)
    np.testing.assert_allclose(after[0], before[0], atol=1e-5)
    np.testing.assert_allclose(after[1], before[1] * (1.25 if fit_sizes else 1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("refine_outlines", [True, False])
def test_the_level_of_outlines_is_fitted_and_kept(tiny, sparse_samples, tmp_path, monkeypatch, refine_outlines):
    monkeypatch.setattr("cellsparse_stardist.model.fit_level", lambda samples, predict: OutlineLevel(level=0.35))
    config = tiny(refine_outlines=refine_outlines, test_flips=False)
    model = backend.create(config, sparse_samples, "cpu").model()
    image = sparse_samples[0].image
    model.fit_outlines(sparse_samples)
    model.stock.thresholds = {"prob": 0.1, "nms": 0.4}
    found = model._segment_at(image, [model.thresholds])[0]
    expected = refined(image, found.labels, 0.35) if refine_outlines else found.labels
    assert found.labels.any()
    model.export(tmp_path)
    for each in (model, backend.open_model(tmp_path, "cpu")):
        np.testing.assert_array_equal(each.segment(image).labels, expected)
        np.testing.assert_array_equal(each.segment(image).scores, found.scores)
    again = backend.create(config, sparse_samples, "cpu", tmp_path).model()
    assert again._outline_level is None, "an initial model's level is not that of the new labels"


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 100), (800, 33)])
def test_any_image_size_is_segmented(tiny, sparse_samples, shape):
    model = backend.create(tiny(), sparse_samples, "cpu").model()
    labels = model.predict(np.zeros(shape, np.float32))
    assert labels.shape == shape
    assert labels.dtype == np.int32


def test_no_cell_gives_zeros(tiny, sparse_samples):
    model = backend.create(tiny(), sparse_samples, "cpu").model()
    model.stock.thresholds = {"prob": 0.999, "nms": 0.4}
    assert not model.predict(np.zeros((50, 60), np.float32)).any()


def test_data_without_cells_is_refused(tiny):
    empty = Sample(name="empty", image=np.zeros((40, 40), np.float32), label=np.zeros((40, 40), np.int32))
    with pytest.raises(InvalidArgument, match="None of the 1 training images has a labelled cell"):
        backend.create(tiny(), [empty], "cpu")


@pytest.mark.skipif(bool(tf.config.list_physical_devices("GPU")), reason="there is a GPU")
def test_cuda_asked_for_and_missing_is_refused(tiny, sparse_samples, tmp_path):
    with pytest.raises(InvalidArgument, match="finds no CUDA GPU"):
        backend.create(tiny(), sparse_samples, "cuda")
    with pytest.raises(InvalidArgument, match="finds no CUDA GPU"):
        backend.open_model(tmp_path, "cuda")
    assert backend.devices() == ["cpu"]


def test_a_loss_that_is_not_finite_names_the_step(tiny, sparse_samples):
    training = backend.create(tiny(), sparse_samples, "cpu")
    bias = training.model().stock.keras_model.get_layer("dist").bias
    bias.assign(np.full(bias.shape, np.nan))
    with pytest.raises(FloatingPointError, match="The loss is nan at step 5"):
        training.train_step(4)


def test_a_checkpoint_of_another_network_is_refused(tiny, sparse_samples, tmp_path):
    backend.create(tiny(), sparse_samples, "cpu").save(tmp_path)
    with pytest.raises(ValueError, match="another shape"):
        backend.create(tiny(unet_filters=8), sparse_samples, "cpu").load(tmp_path)


def test_nothing_is_printed(tiny, sparse_samples, tmp_path, capfd):
    model = backend.create(tiny(), sparse_samples, "cpu").model()
    model.export(tmp_path)
    backend.open_model(tmp_path, "cpu").predict(sparse_samples[0].image)
    assert capfd.readouterr().out == ""


def test_versions_name_what_decides_the_numbers():
    assert backend.versions()["stardist"] == "0.9.2"
    assert {"tensorflow", "tf-keras", "csbdeep", "numpy"} <= set(backend.versions())


def test_a_checkpoint_predicts_as_the_training_does(tiny, sparse_samples, tmp_path):
    training = backend.create(tiny(), sparse_samples, "cpu")
    train(training, range(4))
    training.save(tmp_path)
    opened = backend.open_checkpoint(tmp_path, "cpu")
    for ours, theirs in zip(weights(training), opened.stock.keras_model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    image = sparse_samples[0].image
    np.testing.assert_array_equal(opened.predict(image), training.model().predict(image))


def test_a_model_of_release_0_1_0_predicts_as_one_of_today(tiny, sparse_samples, tmp_path):
    """There the settings stood alone in the file, one under another name, and thresholds in the stock tool's file."""
    training = backend.create(tiny(), sparse_samples, "cpu")
    train(training, range(4))
    training.model().export(tmp_path)
    image = sparse_samples[0].image
    labels = backend.open_model(tmp_path, "cpu").predict(image)
    record = json.loads((tmp_path / "config.json").read_text())["config"]
    record["dark_share"] = record.pop("likely_background")
    (tmp_path / "config.json").write_text(json.dumps(record))
    np.testing.assert_array_equal(backend.open_model(tmp_path, "cpu").predict(image), labels)
