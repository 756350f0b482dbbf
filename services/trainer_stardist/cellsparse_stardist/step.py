"""One training step of StarDist as one TensorFlow graph, and the state that a later step needs."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cellsparse_stardist.config import Config
from cellsparse_stardist.cpu_bfloat16 import bfloat16, predicts_in_bfloat16
from cellsparse_stardist.data import Batch, Sampler
from cellsparse_stardist.data_parallel import DataParallel
from cellsparse_stardist.framework import tf, use_device
from cellsparse_stardist.loss import dist_loss, local_only, prob_loss
from cellsparse_stardist.model import StardistModel
from cellsparse_stardist.network import empty_network, read_config, with_logits
from cellsparse_trainer.config.schedule import learning_rate
from cellsparse_trainer.data.prefetch import Batches
from cellsparse_trainer.models.outline_refinement import without_level
from cellsparse_trainer.processes.failures import not_finite

BETA_1, BETA_2, ADAM_EPSILON = 0.9, 0.999, 1e-7
"""Keras' defaults for Adam."""
LOSS_WEIGHTS = (1.0, 0.2)
"""Stock StarDist's weights of probability and distance loss."""
STATE_FILE = "state.npz"
"""What `save` writes: weights and optimizer moments."""
PROBES = 4
"""Batches in which the mean ray length is measured that the network starts from."""


class StardistTraining:
    """A StarDist training in progress.

    Args:
        config: All settings, fitted to the labelled cells.
        sampler: Draws the batches.
        stock: The stock model, with weights and thresholds to begin with.
        parallel: The processes that train together; None: one trains alone.
        half: Whether steps compute in bfloat16.
    """

    def __init__(
        self, config: Config, sampler: Sampler, stock: Any, parallel: DataParallel | None = None, half: bool = False
    ) -> None:
        self.batches: Batches = sampler
        self._step = Step(stock.keras_model, config, parallel, half)
        self._model = StardistModel(stock, config, half=half)

    def train_step(self, step: int) -> dict[str, float]:
        """Do step number `step` (from 0); returns "loss", "prob" and "dist".

        Raises:
            FloatingPointError: The loss or its gradient is not finite.
        """
        return self._step(self.batches.batch(step), step)

    def save(self, folder: Path) -> None:
        """Write weights and optimizer moments in one file, and the settings that `open_checkpoint` needs."""
        np.savez(folder / STATE_FILE, **self._step.state())  # type: ignore[arg-type]
        self._model.write_config(folder)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            ValueError: It belongs to a network of another shape.
        """
        with np.load(folder / STATE_FILE, allow_pickle=False) as state:
            self._step.set_state(dict(state))

    def model(self) -> StardistModel:
        """Return the current weights as a model, which shares them."""
        return self._model


def open_checkpoint(folder: Path, device: str) -> StardistModel:
    """Open the weights that `StardistTraining.save` wrote, with thresholds not yet tuned.

    Args:
        folder: Holds the state and `config.json`.
        device: "auto", "cpu" or "cuda".

    Raises:
        InvalidArgument: The device is missing.
        FileNotFoundError: A file is missing.
        ValueError: `config.json` is damaged.
    """
    chosen = use_device(device)
    stored = read_config(folder)
    config = Config.from_dict(stored.config)
    stock = empty_network(config)
    with np.load(folder / STATE_FILE, allow_pickle=False) as state:
        for index, variable in enumerate(stock.keras_model.trainable_variables):
            variable.assign(state[f"weight_{index:03d}"])
    stock.thresholds = without_level(stored.fitted)
    return StardistModel(stock, config, half=predicts_in_bfloat16(config.plan.precision, chosen))


def mean_ray(sampler: Sampler, first_step: int) -> float:
    """Return the mean ray length in pixels in batches that no step draws."""
    every = range(sampler.config.plan.crops_per_step)  # so that all ranks find the same
    batches = [sampler.part(first_step + i, every) for i in range(PROBES)]
    rays = np.concatenate([batch.dist[batch.prob[..., 0] > 0] for batch in batches])
    return float(rays.mean()) if rays.size else 0.0


class Step:
    """Adam with decoupled weight decay on a StarDist network.

    Keras' own optimizer keeps the step count in a variable and runs a dozen operations per weight. Here the step is an
    argument, so the weights and their two moments are the only state.

    Args:
        network: StarDist's Keras model.
        config: Rates and weights.
        parallel: The processes that train this network; None: one trains alone.
        half: Whether to compute in bfloat16, on a CPU; weights and moments stay in float32.
    """

    def __init__(self, network: Any, config: Config, parallel: DataParallel | None = None, half: bool = False) -> None:
        self._network = network
        compiled = config.plan.compile_step
        self._outputs = with_logits(network, for_xla=compiled)
        self._half = half
        self._total = local_only if parallel is None else parallel.total
        self._sum = local_only if parallel is None else parallel.gradients
        self._config = config
        self._first = [tf.Variable(tf.zeros_like(w)) for w in network.trainable_variables]
        self._second = [tf.Variable(tf.zeros_like(w)) for w in network.trainable_variables]
        unknown = [None] * (1 + len(config.crop))
        maps = [tf.TensorSpec([*unknown, channels], tf.float32) for channels in (config.plan.inputs, 1, config.n_rays)]
        run = self._graph if parallel is None else parallel.wrap(self._graph)
        numbers = [tf.TensorSpec([], tf.float32)] * 3
        # No branch or loop depends on a tensor. Looking for some in the code took nearly half of the first step.
        self._run = tf.function(
            run, input_signature=[*maps, *numbers], jit_compile=True if compiled else None, autograph=False
        )

    def __call__(self, batch: Batch, step: int) -> dict[str, float]:
        """Change the weights by step number `step` (from 0).

        Raises:
            FloatingPointError: The loss or its gradient is not finite; the weights are of no use any more.
        """
        powers = BETA_1 ** (step + 1), BETA_2 ** (step + 1)
        numbers = [np.float32(x) for x in (learning_rate(self._config.plan, step), *powers)]
        with bfloat16(self._half):
            losses = self._run(batch.image, batch.prob, batch.dist, *numbers)
        named = {name: float(value) for name, value in zip(("loss", "prob", "dist", "slope"), losses, strict=True)}
        if not (np.isfinite(named["loss"]) and np.isfinite(named.pop("slope"))):
            raise not_finite(named["loss"], step)
        return named

    def state(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return weights and moments by name."""
        return {name: variable.numpy() for name, variable in self._variables().items()}

    def set_state(self, state: dict[str, npt.NDArray[np.float32]]) -> None:
        """Take over what `state` returned.

        Raises:
            ValueError: Names or shapes are another network's.
        """
        variables = self._variables()
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        given = {name: value.shape for name, value in state.items()}
        if shapes != given:
            raise ValueError("The checkpoint belongs to a network of another shape.")
        for name, variable in variables.items():
            variable.assign(state[name])

    def _variables(self) -> dict[str, Any]:
        groups = {"weight": self._network.trainable_variables, "first": self._first, "second": self._second}
        return {f"{group}_{i:03d}": v for group, variables in groups.items() for i, v in enumerate(variables)}

    def _graph(self, image: Any, prob: Any, dist: Any, rate: Any, power_1: Any, power_2: Any) -> Any:
        weights, total = self._network.trainable_variables, self._total
        with tf.GradientTape() as tape:
            logit, dist_out = self._outputs(image)
            losses = prob_loss(prob, logit, total=total), dist_loss(prob, dist, dist_out, self._config, total)
            loss = LOSS_WEIGHTS[0] * losses[0] + LOSS_WEIGHTS[1] * losses[1]
        gradients = self._sum(tape.gradient(loss, weights))
        norm = tf.linalg.global_norm(gradients)
        if self._config.gradient_limit > 0:
            gradients, _ = tf.clip_by_global_norm(gradients, self._config.gradient_limit, norm)
        for weight, gradient, first, second in zip(weights, gradients, self._first, self._second, strict=True):
            if self._config.plan.weight_decay > 0 and "kernel" in weight.name:
                weight.assign_sub(rate * self._config.plan.weight_decay * weight)
            own_rate = rate * self._config.dist_rate if weight.name.startswith("dist/") else rate
            tf.raw_ops.ResourceApplyAdam(
                var=weight.handle,
                m=first.handle,
                v=second.handle,
                beta1_power=power_1,
                beta2_power=power_2,
                lr=own_rate,
                beta1=BETA_1,
                beta2=BETA_2,
                epsilon=ADAM_EPSILON,
                grad=gradient,
            )
        return *total([loss, *losses]), norm
