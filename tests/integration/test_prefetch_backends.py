"""Every backend's sampler in processes of its own: the same batches, without the framework."""

import dataclasses
import importlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from support.backends import trained_here
from support.generated_samples import GeneratedSamples
from support.limits import PATIENCE
from support.tiny_dataset import write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.data.prefetch import Prefetch
from cellsparse_trainer.data.samples import StoredSamples, trainable_items

SETTINGS = {
    "cellpose": trainer_pb2.TrainingSettings(cellpose={}),
    "cellpose_sam": trainer_pb2.TrainingSettings(
        crop_size=256, cellpose_sam={"encoder_depth": 1, "encoder_width": 16, "encoder_heads": 2}
    ),
    "stardist": trainer_pb2.TrainingSettings(stardist={"n_rays": 8, "unet_depth": 1, "unet_filters": 4, "features": 4}),
    "unet": trainer_pb2.TrainingSettings(unet={"base_channels": 4}),
}
FRAMEWORKS = "torch", "tensorflow"


@pytest.fixture
def samples(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLSPARSE_STORE_URL", f"file://{tmp_path}")
    store = open_store(StoreSettings())
    manifest = write_dataset(store)
    return lambda plan: StoredSamples(store, trainable_items(manifest), plan)


def flat(batch):
    if dataclasses.is_dataclass(batch):
        return dataclasses.asdict(batch)
    return dict(enumerate(batch))


@pytest.mark.parametrize("name", trained_here(SETTINGS))
def test_samplers_keep_summaries_of_images_and_no_more_targets_than_their_bound(name, monkeypatch):
    backend = importlib.import_module(f"cellsparse_{name}.backend")
    light = importlib.import_module(f"cellsparse_{name}.light")
    if name.startswith("cellpose"):
        monkeypatch.setattr(f"cellsparse_{name}.data.TARGET_BYTES", 0)
    settings = trainer_pb2.TrainingSettings(steps=4, batch_size=2, crop_size=32)
    settings.MergeFrom(SETTINGS[name])
    sizes = []
    for count in (10, 40):
        config = light.resolve(settings, count)
        sampler = backend.create(config, GeneratedSamples(count), "cpu").batches
        if name == "unet":
            assert not sampler._prepared._kept  # filled by the steps, up to its bound
        sizes.append(len(pickle.dumps(sampler)))
    pixels = 64 * 64
    assert (sizes[1] - sizes[0]) / 30 < pixels / 2  # bytes for each image more; the image and its labels take 8 a pixel


@pytest.mark.parametrize("name", trained_here(SETTINGS))
def test_processes_draw_what_the_training_would_draw_and_load_no_framework(name, samples, tmp_path):
    backend = importlib.import_module(f"cellsparse_{name}.backend")
    light = importlib.import_module(f"cellsparse_{name}.light")
    settings = trainer_pb2.TrainingSettings(steps=4, batch_size=2, crop_size=32, seed=3)
    settings.MergeFrom(SETTINGS[name])
    config = light.resolve(settings, 1)
    sampler = backend.create(config, samples(config.plan), "cpu").batches
    ahead = Prefetch(sampler, workers=2, steps=4)
    try:
        for step in (0, 1, 2, 3):
            mine, theirs = flat(sampler.batch(step)), flat(ahead.batch(step))
            assert mine.keys() == theirs.keys()
            for key, value in mine.items():
                np.testing.assert_array_equal(theirs[key], value)
    finally:
        ahead.close()
    (tmp_path / "sampler").write_bytes(pickle.dumps(sampler))
    code = (
        "import pickle, sys\n"
        f"pickle.load(open({str(tmp_path / 'sampler')!r}, 'rb')).batch(0)\n"
        f"sys.exit(', '.join(name for name in {FRAMEWORKS!r} if name in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
