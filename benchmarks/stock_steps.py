"""Training steps of the stock implementations with our batch, crop and network, to compare ours with.

Each class has `run(steps)`, which returns the seconds of each step or their mean. A step includes everything: drawing
and augmenting crops, targets, network, optimizer.
"""

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from nuclei import Picture

from cellsparse_trainer.data.samples import Sample


class CellposeSteps:
    """`cellpose.train.train_seg`; dense labels, because stock Cellpose supports no others.

    The network is ours, `CPnet` with `mkldnn=False`.
    """

    def __init__(self, config: Any, pictures: list[Picture], items: list[Sample]) -> None:
        import torch
        from cellpose import dynamics, models
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self._config = config
        self._net = models.CellposeModel(gpu=False, pretrained_model=None, mkldnn=False).net
        self._images = [np.stack([one.image, np.zeros_like(one.image)]) for one in items]
        self._flows = dynamics.labels_to_flows([one.label for one in pictures], device=torch.device("cpu"))
        self._starts: list[float] = []
        self._ends: list[float] = []
        # With one batch per epoch, `train()` is called where a step begins and the optimizer's step is its end.
        self._net.train = self._noting(self._net.train)
        register_optimizer_step_post_hook(lambda *_: self._ends.append(time.perf_counter()))

    def run(self, steps: int) -> list[float]:
        from cellpose import train

        self._starts.clear()
        self._ends.clear()
        plan = self._config.plan
        with tempfile.TemporaryDirectory() as folder:
            train.train_seg(
                self._net,
                train_data=self._images,
                train_labels=self._flows,
                batch_size=plan.batch_size,
                nimg_per_epoch=plan.batch_size,
                n_epochs=steps,
                bsize=plan.crop_size,
                scale_range=self._config.scale_range,
                learning_rate=plan.learning_rate,
                weight_decay=plan.weight_decay,
                SGD=self._config.optimizer == "sgd",
                normalize=False,
                min_train_masks=1,
                save_path=folder,
            )
        return [end - start for start, end in zip(self._starts, self._ends, strict=True)]

    def _noting(self, train: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            self._starts.append(time.perf_counter())
            return train(*arguments)

        return noting


class StardistSteps:
    """`StarDist2D.train` on the sparse labels, with the augmentation of StarDist's examples.

    Keras draws batches in a separate thread. A block of steps is therefore timed as a whole, from the beginning of the
    epoch to the end of the last batch; the thread has one or two batches ready by then.
    """

    def __init__(self, config: Any, pictures: list[Picture], items: list[Sample]) -> None:
        from cellsparse_stardist.framework import StarDist2D, quiet
        from cellsparse_stardist.network import stock_config

        self._quiet = quiet
        with quiet():
            self._stock = StarDist2D(stock_config(config), name="stock", basedir=None)
            self._stock.prepare_for_training()
        self._timer = _epoch_timer()
        self._stock.callbacks.append(self._timer)
        self._images = [one.image for one in items]
        self._labels = [one.label for one in items]

    def run(self, steps: int) -> list[float]:
        with self._quiet():
            self._stock.train(
                self._images,
                self._labels,
                validation_data=(self._images[:1], self._labels[:1]),
                augmenter=_augment,
                epochs=1,
                steps_per_epoch=steps,
            )
        return [(self._timer.end - self._timer.start) / steps] * steps


def _epoch_timer() -> Any:
    from cellsparse_stardist.framework import tf

    class EpochTimer(tf.keras.callbacks.Callback):
        start = end = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.end = time.perf_counter()

    return EpochTimer()


def _augment(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Augment with turns, flips, intensity and noise, as in StarDist's examples (examples/2D/2_training.ipynb)."""
    turns = np.random.randint(4)  # noqa: NPY002 - as StarDist's examples have it
    image, label = np.rot90(image, turns), np.rot90(label, turns)
    if np.random.rand() > 0.5:  # noqa: NPY002
        image, label = image[:, ::-1], label[:, ::-1]
    image = image * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)  # noqa: NPY002
    return image + 0.02 * np.random.uniform(0, 1) * np.random.normal(0, 1, image.shape), label  # noqa: NPY002


class UnetSteps:
    """A plain PyTorch loop: our network and batches, batches made in the loop, default memory layout, default Adam."""

    def __init__(self, config: Any, pictures: list[Picture], items: list[Sample]) -> None:
        import torch

        from cellsparse_unet.data import Sampler
        from cellsparse_unet.network import UNet

        self._config = config
        self._sampler = Sampler(items, config)
        # Outside training mode it computes as ELEPHANT writes it; no layer of it trains otherwise.
        self._net = UNet(base_channels=config.base_channels).eval()
        self._optimizer = torch.optim.Adam(self._net.parameters(), lr=config.plan.learning_rate)
        likely = config.class_weights[0] * config.likely_background
        touching = config.class_weights[1] * config.border_weight
        self._weights = torch.tensor([*config.class_weights, likely, touching])
        self._step = 0

    def run(self, steps: int) -> list[float]:
        import torch

        from cellsparse_unet.loss import segmentation_loss

        times = []
        for _ in range(steps):
            began = time.perf_counter()
            images, classes = self._sampler.batch(self._step)
            output = self._net(torch.from_numpy(images))
            loss = segmentation_loss(output, torch.from_numpy(classes), self._weights, self._config.loss_shares)["loss"]
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            loss.item()
            self._step += 1
            times.append(time.perf_counter() - began)
        return times


STEPS = {"cellpose": CellposeSteps, "stardist": StardistSteps, "unet": UnetSteps}
