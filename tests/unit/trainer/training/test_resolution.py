"""What a run trains with and on, decided by the server: it goes to the worker through a file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from support.cellsparse_fake import light

from cellsparse_common import datasets
from cellsparse_common.errors import Damaged, FailedPrecondition, InvalidArgument, NotFound
from cellsparse_common.storage import FolderStore, keys
from cellsparse_proto.v1 import common_pb2, dataset_pb2, trainer_pb2
from cellsparse_trainer.models.store import publish_model
from cellsparse_trainer.processes.job import Job
from cellsparse_trainer.training import resolution
from cellsparse_trainer.training.resolution import Resolution, resolve

TRAIN, VAL, TEST = common_pb2.SPLIT_TRAIN, common_pb2.SPLIT_VAL, common_pb2.SPLIT_TEST


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path / "store")


def stack(store, name, split, planes):
    """A stack with a cell in the given planes, another one for each name."""
    label = np.full((9, 8, 9), -1, np.int32)
    label[planes, 1:4, 1 : 3 + len(name)] = 1
    image = np.full(label.shape, len(name), np.uint8)
    return datasets.put_item(store, name=name, split=split, image=image, label=label)


def dataset(store, *items):
    manifest = dataset_pb2.DatasetManifest(dataset=dataset_pb2.Dataset(id="ds-1", name="d"), items=items)
    datasets.write_manifest(store, manifest)


def request(**settings):
    given = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), **settings)
    return trainer_pb2.StartTrainingRequest(run_id="run-1", attempt=1, dataset_id="ds-1", settings=given)


class OfPlanes:
    """A backend that trains on single planes, for as many steps as there are."""

    Config = light.Config
    adopt = staticmethod(light.adopt)

    def __init__(self):
        self.calls = []

    def resolve(self, settings, items, stacks=False):
        self.calls.append((items, stacks))
        config = light.resolve(settings, items, stacks)
        return replace(config, plan=replace(config.plan, steps=items, crop_depth=None))


def test_items_and_configuration_travel_to_the_worker(store, tmp_path):
    train, val = stack(store, "a", TRAIN, [2, 4]), stack(store, "bb", VAL, [3])
    dataset(store, train, val, stack(store, "ccc", TEST, [1]))
    config, inputs = Resolution(light, store)(request(steps=9, seed=2**64 - 1))
    job = Job(package="p", request=request(), inputs=inputs, folder=tmp_path, coordinator="h:1", rendezvous_seconds=3)
    found = Job.read(job.write())
    assert found == job
    assert (list(found.inputs.train), list(found.inputs.validation)) == ([train], [val])
    assert found.inputs.train_planes is None
    assert light.Config.from_json(found.inputs.config) == config
    assert (config.plan.steps, config.plan.seed) == (9, 2**64 - 1)


def test_a_backend_of_planes_resolves_for_the_planes_with_labels(store, tmp_path):
    dataset(store, stack(store, "a", TRAIN, [2, 4]), stack(store, "bb", TRAIN, [5]), stack(store, "ccc", VAL, [1, 7]))
    backend = OfPlanes()
    config, inputs = Resolution(backend, store)(request())
    assert backend.calls == [(2, True), (3, True)]
    assert config.plan.steps == 3
    assert inputs.train_planes == [(0, 2), (0, 4), (1, 5)]
    assert inputs.validation_planes == [(0, 1), (0, 7)]
    job = Job(package="p", request=request(), inputs=inputs, folder=tmp_path)
    assert Job.read(job.write()).inputs == inputs


def test_without_validation_items_planes_of_training_stacks_are_shown(store):
    dataset(store, stack(store, "a", TRAIN, [2, 4]))
    _, inputs = Resolution(OfPlanes(), store)(request())
    assert inputs.validation_planes == [(0, 2), (0, 4)]


def test_label_images_are_read_once(store, monkeypatch):
    reads = []
    original = resolution.labelled_planes
    monkeypatch.setattr(resolution, "labelled_planes", lambda *given: reads.append(given) or original(*given))
    dataset(store, stack(store, "a", TRAIN, [2, 4]), stack(store, "bb", VAL, [1]))
    resolve_run = Resolution(OfPlanes(), store)
    assert resolve_run(request()) == resolve_run(request())
    assert len(reads) == 2


class Echo:
    def resolve(self, settings, items, stacks=False):
        if settings.steps == 7:
            raise ValueError("steps is 7; allowed: others.")
        return items, stacks


def test_settings_are_refused_as_the_users_fault():
    assert resolve(Echo(), trainer_pb2.TrainingSettings(crop_depth=4), 3, "ZYX") == (3, True)
    assert resolve(Echo(), trainer_pb2.TrainingSettings(), 3, "YX") == (3, False)
    with pytest.raises(InvalidArgument, match="crop_depth is 4, but the dataset's items are 2D"):
        resolve(Echo(), trainer_pb2.TrainingSettings(crop_depth=4), 3, "YX")
    with pytest.raises(InvalidArgument, match="steps is 7"):
        resolve(Echo(), trainer_pb2.TrainingSettings(steps=7), 3, "ZYX")


def test_the_initial_model_is_applied(store, tmp_path):
    dataset(store, stack(store, "a", TRAIN, [2]))
    with pytest.raises(NotFound):
        Resolution(light, store)(request(initial_model="run-0"))
    feeding = {"channel": 2, "lower_percentile": 3.0, "upper_percentile": 97.0}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"fitted": {"threshold": 0.5}}))
    card = {"version": 1, "backend": "unet", "axes": "ZYX", "preprocessing": feeding}
    publish_model(store, "run-0", tmp_path / "model", card)
    config, inputs = Resolution(light, store)(request(initial_model="run-0", lower_percentile=1.0))
    assert (config.plan.channel, config.plan.lower_percentile, config.plan.upper_percentile) == (2, 1.0, 97.0)
    assert light.Config.from_json(inputs.config) == config


class Release:
    """A backend of some release, whose preset has so many steps, and what else the release makes of settings."""

    adopt = staticmethod(light.adopt)

    def __init__(self, steps, rate=0.001, config=light.Config):
        self.Config = config
        self._preset = {"steps": steps, "learning_rate": rate}

    def resolve(self, settings, items, stacks=False):
        config = light.resolve(settings, items, stacks)
        changed = {name: value for name, value in self._preset.items() if not settings.HasField(name)}
        return replace(config, plan=replace(config.plan, **changed))


def test_an_upgrade_does_not_change_a_run_that_is_under_way(store):
    dataset(store, stack(store, "a", TRAIN, [2]))
    first, _ = Resolution(Release(40, rate=0.1), store)(request())
    again, inputs = Resolution(Release(900, rate=0.3), store)(request())
    assert (again, again.plan.steps) == (first, 40)
    assert light.Config.from_json(inputs.config) == first


def test_what_an_attempt_changes_is_all_that_changes(store):
    dataset(store, stack(store, "a", TRAIN, [2]))
    first, _ = Resolution(Release(40, rate=0.1), store)(request())
    newer = Resolution(Release(900, rate=0.3), store)
    for settings in ({"learning_rate": 0.05}, {"learning_rate": 0.05, "batch_size": 3}, {"learning_rate": 0.05}):
        found, _ = newer(request(**settings))
        expected = {"batch_size": first.plan.batch_size, **settings}
        assert found == replace(first, plan=replace(first.plan, **expected)), settings


def test_another_run_and_another_dataset_take_the_presets_of_today(store):
    dataset(store, stack(store, "a", TRAIN, [2]))
    Resolution(Release(40), store)(request())
    other = request()
    other.run_id = "run-2"
    newer = Resolution(Release(900), store)
    assert newer(other)[0].plan.steps == 900
    manifest = dataset_pb2.DatasetManifest(
        dataset=dataset_pb2.Dataset(id="ds-2", name="d"), items=[stack(store, "a", TRAIN, [2])]
    )
    datasets.write_manifest(store, manifest)
    moved = request()
    moved.dataset_id = "ds-2"
    assert newer(moved)[0].plan.steps == 900


def test_settings_that_a_release_does_not_know_end_the_run(store):
    dataset(store, stack(store, "a", TRAIN, [2]))
    Resolution(light, store)(request())
    key = keys.report_file("run-1", "settings.json")
    kept = json.loads(store.get(key))
    kept["config"]["plan"]["of_the_future"] = 1
    store.put(key, json.dumps(kept).encode())
    with pytest.raises(FailedPrecondition, match="Run run-1 was begun by another release, with settings that this one"):
        Resolution(light, store)(request())
    store.put(key, b"[1]")
    with pytest.raises(Damaged, match="The settings kept for run run-1 are damaged"):
        Resolution(light, store)(request())
