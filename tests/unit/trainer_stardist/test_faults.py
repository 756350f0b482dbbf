"""Faults of the reference, and of data, that StarDist's training must not have."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from support.odd_images import check_predicts, odd_images
from support.poisoned_training import check_poisoned_run, digest

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_stardist import backend, export, framework, importing, model, network
from cellsparse_stardist.config import resolve
from cellsparse_stardist.model import StardistModel
from cellsparse_stardist.network import build_network


def test_a_loss_that_is_not_finite_keeps_the_checkpoint_before(tiny, sparse_samples, tmp_path):
    check_poisoned_run(backend, tiny(), sparse_samples, tmp_path)


def test_a_gradient_that_is_not_finite_ends_the_run_and_names_the_step(tiny, sparse_samples):
    training = backend.create(tiny(), sparse_samples, "cpu")
    head = training.model().stock.keras_model.get_layer("dist")
    head.kernel.assign(np.full(head.kernel.shape, 1e30))  # the loss is a number still, its gradient squared is none
    with pytest.raises(FloatingPointError, match=r"The gradient is not finite at step 3\."):
        training.train_step(2)


def test_nothing_of_the_data_is_changed_by_a_whole_training(tiny, sparse_samples, tmp_path):
    samples = [dataclasses.replace(s, image=s.image.copy(), label=s.label.copy()) for s in sparse_samples]
    before = digest(samples)
    training = backend.create(tiny(), samples, "cpu")
    for step in range(3):
        training.train_step(step)
    trained = training.model()
    trained.tune(samples)
    trained.predict(samples[0].image)
    trained.export(tmp_path)
    assert digest(samples) == before


class Gpus:
    """TensorFlow's list of devices on a machine with two GPUs; notes what is asked of them, in order."""

    def __init__(self, monkeypatch):
        self.asked = []
        config = framework.tf.config
        monkeypatch.setattr(config, "list_physical_devices", lambda kind=None: ["gpu-a", "gpu-b"])
        monkeypatch.setattr(config, "set_visible_devices", lambda devices, kind: self.asked.append((kind, devices)))
        monkeypatch.setattr(
            config.experimental, "set_memory_growth", lambda gpu, enable: self.asked.append((gpu, enable))
        )


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_every_gpu_gives_only_the_memory_that_is_needed(device, monkeypatch):
    gpus = Gpus(monkeypatch)
    assert framework.use_device(device) == "cuda"
    assert gpus.asked == [("gpu-a", True), ("gpu-b", True)]


def test_the_memory_rule_is_set_before_anything_is_computed(tiny, sparse_samples, monkeypatch, tmp_path):
    """Later it would be an error: TensorFlow takes the memory when it first uses a GPU."""
    gpus = Gpus(monkeypatch)

    class Stop(Exception):
        pass

    def used(*_, **__):
        assert gpus.asked == [("gpu-a", True), ("gpu-b", True)]
        raise Stop

    monkeypatch.setattr(backend, "Sampler", used)
    monkeypatch.setattr(framework.tf.random, "set_seed", used)
    with pytest.raises(Stop):
        backend.create(tiny(), sparse_samples, "cuda")
    gpus.asked.clear()
    monkeypatch.setattr(model, "read_model", used)
    with pytest.raises(Stop):
        backend.open_model(tmp_path, "auto")


def test_nor_do_exports_and_imports_compute_before_it(tiny, monkeypatch, tmp_path):
    """All of them share one process with predictions, which would fail after any of them."""
    config = tiny()
    StardistModel(build_network(config, 0.0), config).export(tmp_path / "model")
    gpus = Gpus(monkeypatch)

    class Stop(Exception):
        pass

    def used(*_):
        assert gpus.asked == [("gpu-a", True), ("gpu-b", True)]
        raise Stop

    monkeypatch.setattr(network, "stock_class", used)
    with pytest.raises(Stop):
        export.saved_model(tmp_path / "model", tmp_path, {})
    gpus.asked.clear()
    with pytest.raises(Stop):
        importing.import_model(tmp_path / "model" / "stardist", tmp_path, trainer_pb2.ImportSettings(), None)


def test_on_the_cpu_no_gpu_is_touched(monkeypatch):
    gpus = Gpus(monkeypatch)
    assert framework.use_device("cpu") == "cpu"
    assert gpus.asked == [("GPU", [])]


def test_a_missing_gpu_is_said_before_any_item_is_read(tiny, monkeypatch):
    monkeypatch.setattr(framework.tf.config, "list_physical_devices", lambda kind=None: [])

    class Unread(list):
        def __getitem__(self, index):
            raise AssertionError("an item was read")

        __iter__ = __getitem__

    with pytest.raises(InvalidArgument, match="no CUDA GPU"):
        backend.create(tiny(), Unread([1]), "cuda")


@pytest.fixture(scope="module")
def unfit():
    """Models that have learnt nothing: one as it is, one that finds cells everywhere, one whose output is NaN."""
    asked = trainer_pb2.TrainingSettings(
        crop_size=32, stardist=trainer_pb2.StardistSettings(unet_depth=1, unet_filters=4, n_rays=8)
    )
    config = dataclasses.replace(resolve(asked, 1), features=8)
    models = [StardistModel(build_network(config, start), config) for start in (5.0, 5.0, np.nan)]
    models[1].stock.thresholds = {"prob": 0.01, "nms": 0.4}
    models[2].stock.thresholds = {"prob": 0.01, "nms": 0.4}
    return models


@limits(max_examples=25, suppress_health_check=list(HealthCheck))
@given(image=odd_images())
def test_any_image_gives_labels_or_a_sentence(unfit, image):
    for each in unfit:
        check_predicts(each.predict, image)
