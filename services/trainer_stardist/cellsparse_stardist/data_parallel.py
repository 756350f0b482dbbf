"""Training one model with several processes: TensorFlow's MultiWorkerMirroredStrategy, and exact sums.

Each process holds the whole network with equal weights. Losses divide by counts over all processes, so each process has
its share of the loss of all crops. Shares and their gradients add up to what one process would have computed.
"""

from collections.abc import Callable
from typing import Any

from cellsparse_common.errors import InvalidArgument
from cellsparse_stardist.framework import tf
from cellsparse_trainer.distributed.ranks import Ranks


class DataParallel:
    """The processes that train one model, found by `TF_CONFIG`. Made before TensorFlow computes anything.

    Args:
        gradient_format: How gradients travel between processes (see `Plan`).
    """

    def __init__(self, gradient_format: str = "float32") -> None:
        self._format = tf.as_dtype(gradient_format)
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def wrap(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the work where `total` can be called."""
        return lambda *args: self._strategy.run(work, args)

    def total(self, value: Any) -> Any:
        """Return the sum of all processes' values, or of each of a list of them."""
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, value)

    def gradients(self, values: list[Any]) -> list[Any]:
        """Return the sums of all processes' gradients."""
        return [tf.cast(value, tf.float32) for value in self.total([tf.cast(value, self._format) for value in values])]


def pin_gpu(ranks: Ranks) -> None:
    """Leave this process only its own GPU, where the node has any.

    Raises:
        InvalidArgument: There are fewer GPUs than processes.
    """
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return
    if ranks.local_rank >= len(gpus):
        raise InvalidArgument(
            f"processes_per_node is above the number of this node's GPUs, {len(gpus)}; each process needs one.",
            "settings.processes_per_node",
        )
    tf.config.set_visible_devices(gpus[ranks.local_rank], "GPU")
