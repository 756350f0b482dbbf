"""A backend without a framework, for unit tests of what surrounds a backend.

`learning_rate` chooses what happens: 0.5 raises at step 10, 0.6 is not finite at step 10, 0.7 runs out of memory,
0.8 kills its own process, 0.9 sleeps in every step.

Its exports: "native" copies the model, "torchscript" kills its own process in the middle, "onnx" takes a minute.
"""

import json
import os
import shutil
import signal
import time

import numpy as np
from scipy import ndimage
from support.cellsparse_fake.config import resolve

__all__ = ["resolve"]
NAME = "unet"


def versions():
    return {"numpy": np.__version__}


def devices():
    return ["cpu"]


class FakeModel:
    def __init__(self, threshold):
        self.threshold = threshold

    def predict(self, image):
        return ndimage.label(image > self.threshold)[0].astype(np.int32)

    def tune(self, samples):
        self.threshold = 0.5

    def export(self, folder):
        (folder / "sub").mkdir()
        (folder / "sub" / "threshold.json").write_text(json.dumps(self.threshold))


class FakeTraining:
    def __init__(self, config):
        self.config = config
        self.sum = 0.0

    def train_step(self, step):
        act = self.config.plan.learning_rate
        if step == 10 and act == 0.5:
            raise RuntimeError("the fake broke")
        if step == 10 and act == 0.6:
            raise FloatingPointError("The loss is not finite at step 10.")
        if step == 10 and act == 0.7:
            raise MemoryError
        if step == 10 and act == 0.8:
            os.kill(os.getpid(), signal.SIGKILL)
        if act == 0.9:
            time.sleep(0.05)
        print("frameworks print to standard output")
        self.sum += float(np.random.default_rng([self.config.plan.seed, step]).random())
        return {"loss": 1.0 / (step + 1)}

    def save(self, folder):
        (folder / "state.json").write_text(json.dumps(self.sum))

    def load(self, folder):
        self.sum = json.loads((folder / "state.json").read_text())

    def model(self):
        return FakeModel(self.sum / 20)


def create(config, train, device):
    return FakeTraining(config)


def open_model(folder, device):
    return FakeModel(json.loads((folder / "sub" / "threshold.json").read_text()))


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
