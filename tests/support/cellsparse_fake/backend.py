"""A backend without a framework, for unit tests of what surrounds a backend.

`learning_rate` chooses what happens: 0.5 raises after step 10, 0.6 is not finite after it, 0.7 runs out of memory,
0.8 kills its own process, 0.85 aborts it as C++ does without memory, 0.9 sleeps in every step; with 0.4 the weights do
nothing, so that no score rises.

A prediction takes as long as CELLSPARSE_FAKE_PREDICT_SECONDS says, and that of an image 77 pixels high ten minutes.

CELLSPARSE_FAKE_PREDICTED names a file to which the height of each predicted image is added.

Its exports: "native" copies the model, "torchscript" kills its own process in the middle, "onnx" takes a minute.
"""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.imaging.scores import Segmentation, mean_per_cell
from cellsparse_trainer.config.backend_config import ModelConfig
from cellsparse_trainer.processes.failures import not_finite


def versions():
    return {"numpy": np.__version__}


def devices():
    return ["cpu"]


class FakeModel:
    def __init__(self, threshold):
        self.threshold = threshold

    def predict(self, image):
        if log := os.environ.get("CELLSPARSE_FAKE_PREDICTED"):
            with Path(log).open("a") as file:
                file.write(f"{len(image)}\n")
        time.sleep(600 if len(image) == 77 else float(os.environ.get("CELLSPARSE_FAKE_PREDICT_SECONDS", "0")))
        return ndimage.label(image > self.threshold)[0].astype(np.int32)

    def segment(self, image):
        labels = self.predict(image)
        return Segmentation(labels=labels, scores=mean_per_cell(labels, image))

    def tune(self, samples):
        self.threshold = 0.5

    def export(self, folder):
        (folder / "sub").mkdir()
        (folder / "sub" / "threshold.json").write_text(json.dumps(self.threshold))
        config = ModelConfig(config={"plan": {}}, fitted={"threshold": self.threshold})
        (folder / "config.json").write_text(config.to_json())


class FakeSampler:
    """Random numbers, and at every step one image that is looked at."""

    def __init__(self, samples, seed):
        self.samples = samples
        self.seed = seed

    def batch(self, step):
        if len(self.samples):
            assert self.samples[step % len(self.samples)].image.size
        return float(np.random.default_rng([self.seed, step]).random())


class FakeTraining:
    def __init__(self, config, samples, start=None):
        self.config = config
        self.sum = 20 * open_model(start, "cpu").threshold if start else 0.0
        self.batches = FakeSampler(samples, config.plan.seed)

    def train_step(self, step):
        act = self.config.plan.learning_rate
        if step == 10 and act == 0.5:
            raise RuntimeError("the fake broke")
        if step == 10 and act == 0.6:
            raise not_finite(float("nan"), step)
        if step == 10 and act == 0.7:
            raise MemoryError
        if step == 10 and act == 0.8:
            time.sleep(1)  # for the checkpoint that is uploaded meanwhile
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 10 and act == 0.85:
            print("terminate called after throwing an instance of 'std::bad_alloc'", flush=True)
            os.abort()
        if act == 0.9:
            time.sleep(0.05)
        print("frameworks print to standard output")
        self.sum += self.batches.batch(step)
        return {"loss": 1.0 / (step + 1)}

    def save(self, folder):
        (folder / "state.json").write_text(json.dumps(self.sum))

    def load(self, folder):
        self.sum = json.loads((folder / "state.json").read_text())

    def model(self):
        return FakeModel(0.3 if self.config.plan.learning_rate == 0.4 else self.sum / 20)


def create(config, train, device, start=None, ranks=None):
    return FakeTraining(config, train, start)


def open_checkpoint(folder, device):
    return FakeModel(json.loads((folder / "state.json").read_text()) / 20)


def open_model(folder, device):
    return FakeModel(json.loads((folder / "sub" / "threshold.json").read_text()))


STOCK_PERCENTILES = (0.0, 100.0)


def import_model(source, target, settings, record):
    """A file with a number, the threshold; "kill" kills the process, "slow" takes a minute."""
    text = (source / "sub" / "threshold.json" if source.is_dir() else source).read_text()
    if text == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if text == "slow":
        time.sleep(60)
    if not 0 <= float(text) <= 1:
        raise InvalidArgument(f"The threshold is {text}; allowed: 0 to 1.", "file")
    FakeModel(float(text)).export(target)


def native(source, target, card):
    shutil.copytree(source / "sub", target / "sub")
    (target / "large.bin").write_bytes(np.random.default_rng(0).bytes(3 * 2**20))


def killed(source, target, card):
    (target / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def slow(source, target, card):
    (target / "half").write_bytes(b"half")
    time.sleep(60)


EXPORTS = {"native": native, "torchscript": killed, "onnx": slow}
