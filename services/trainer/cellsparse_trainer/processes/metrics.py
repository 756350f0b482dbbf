"""A trainer's Prometheus metrics; `cellsparse_common.rpc.metrics` lists their names."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge

from cellsparse_proto.v1 import trainer_pb2


class TrainingMetrics:
    """Reads the events of attempts. A trainer trains one attempt at a time, so the metrics carry no run id."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._steps = Counter("cellsparse_training_steps", "Optimizer steps done.", registry=registry)
        self._seconds = Gauge("cellsparse_training_step_seconds", "Mean seconds per step.", registry=registry)
        self._loss = Gauge("cellsparse_training_loss", "Training loss.", registry=registry)
        self._score = Gauge("cellsparse_training_score", "Newest validation score.", registry=registry)

    def follow(self, attempt: int) -> "Reader":
        """Return a reader for the events of the attempt with this number."""
        return Reader(self, fresh=attempt == 1)

    def report(self, steps: int, seconds: float | None, event: trainer_pb2.TrainingEvent) -> None:
        """Add one report.

        Args:
            steps: Steps since the previous report.
            seconds: Their duration; None if unknown.
            event: The report.
        """
        self._steps.inc(steps)
        if seconds is not None and steps:
            self._seconds.set(seconds / steps)
        if "loss" in event.losses:
            self._loss.set(event.losses["loss"])
        if "score" in event.validation:
            self._score.set(event.validation["score"])


def add_inference_gauges(
    registry: CollectorRegistry,
    *,
    waiting: Callable[[], int],
    models: Callable[[], int],
    model_bytes: Callable[[], int],
) -> None:
    """Add gauges of predictions and their models; each is asked at every scrape.

    Args:
        registry: Where they are added.
        waiting: Calls that wait for a process.
        models: Downloaded models.
        model_bytes: Bytes of these.
    """
    for name, text, answer in (
        ("cellsparse_inference_queue_length", "Predictions and the like that wait for a process.", waiting),
        ("cellsparse_cached_models", "Downloaded models.", models),
        ("cellsparse_cached_model_bytes", "Bytes of the downloaded models.", model_bytes),
    ):
        Gauge(name, text, registry=registry).set_function(answer)


class Reader:
    """Reads the events of one attempt, in their order; a `fresh` one begins at step 0."""

    def __init__(self, metrics: TrainingMetrics, *, fresh: bool) -> None:
        self._metrics = metrics
        self._fresh = fresh
        self._before: trainer_pb2.TrainingEvent | None = None

    def take(self, event: trainer_pb2.TrainingEvent) -> None:
        """Take the next event."""
        if not event.losses and not event.validation:
            return
        # A resumed attempt begins at the step of its checkpoint: how many steps of its first report are new is unknown.
        before, self._before = self._before, event
        if before is None:
            self._metrics.report(event.step if self._fresh else 0, None, event)
        else:
            seconds = event.time.ToNanoseconds() - before.time.ToNanoseconds()
            self._metrics.report(max(event.step - before.step, 0), seconds / 1e9, event)
