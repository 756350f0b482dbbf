"""Runs: train, list, watch, cancel."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cellsparse import enum_names, runs
from cellsparse.calls.base import Calls
from cellsparse.reconnect import OnLost
from cellsparse.runs import Run
from cellsparse.training_settings import training_settings
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2


class RunCalls(Calls):
    """Runs: train, list, watch, cancel."""

    def train(
        self,
        dataset: str,
        backend: str = "cellpose",
        *,
        name: str = "",
        request_id: str = "",
        max_attempts: int | None = None,
        priority: int = 0,
        **settings: Any,
    ) -> Run:
        """Queue a training run.

        Args:
            dataset: Dataset id.
            backend: One of `training_settings.backends()`, such as "cellpose".
            name: Display name; empty: made from backend and dataset.
            request_id: Idempotency key: repeated calls with the same one create one run.
            max_attempts: 1 to 10; not given: 3.
            priority: Larger starts earlier, -100 to 100.
            **settings: Fields of TrainingSettings and of the backend's own settings: preset="fast", steps=100,
                n_rays=32, initial_model="model-..." to start from its weights. The error for an unknown one lists
                all settings and their ranges.

        Returns:
            A handle: `run.wait()`, `run.watch()`, `run.cancel()`.
        """
        request = orchestrator_pb2.CreateRunRequest(
            request_id=request_id,
            name=name,
            dataset_id=dataset,
            settings=training_settings(backend, settings),
            max_attempts=max_attempts,
            priority=priority,
        )
        return Run(self.connection.call("CreateRun", request).run.id, self.connection)

    def train_all(
        self,
        dataset: str,
        settings: Iterable[Mapping[str, Any]],
        *,
        request_id: str = "",
        max_attempts: int | None = None,
        priority: int = 0,
    ) -> list[Run]:
        """Queue up to 100 training runs on one dataset: all of them, or none if one is refused.

        Args:
            dataset: Dataset id.
            settings: For each run what `train` takes: {"backend": "unet", "name": "slow", "steps": 1000}.
            request_id: Idempotency key: repeated calls with the same one create the runs once.
            max_attempts: Of each run, 1 to 10; not given: 3.
            priority: Of each run. Larger starts earlier, -100 to 100.

        Returns:
            A handle for each run, in the order of the settings.
        """

        def asked(backend: str = "cellpose", name: str = "", **chosen: Any) -> orchestrator_pb2.CreateRunRequest:
            return orchestrator_pb2.CreateRunRequest(
                name=name,
                dataset_id=dataset,
                settings=training_settings(backend, chosen),
                max_attempts=max_attempts,
                priority=priority,
            )

        runs = [asked(**each) for each in settings]
        request = orchestrator_pb2.CreateRunsRequest(request_id=request_id, runs=runs)
        return [Run(made.id, self.connection) for made in self.connection.call("CreateRuns", request).runs]

    def run(self, run_id: str) -> orchestrator_pb2.Run:
        """Return one run."""
        return runs.get(self.connection, run_id)

    def runs(
        self, *, states: Sequence[str] = (), backend: str = "", dataset: str = ""
    ) -> Iterator[orchestrator_pb2.Run]:
        """Yield runs, newest first.

        Args:
            states: Only these: "queued", "starting", "running", "retrying", "succeeded", "failed", "cancelled".
            backend: Only this backend.
            dataset: Only this dataset id.
        """
        numbers = [enum_names.number(common_pb2.RunState.DESCRIPTOR, state, "states") for state in states]

        def request(page: Any) -> orchestrator_pb2.ListRunsRequest:
            return orchestrator_pb2.ListRunsRequest(page=page, states=numbers, backend=backend, dataset_id=dataset)

        return self.connection.pages("ListRuns", request, "runs")

    def watch(
        self,
        run_id: str,
        after: int = 0,
        *,
        on_lost: OnLost = lambda *_: None,
        on_back: Callable[[], None] = lambda: None,
    ) -> Iterator[orchestrator_pb2.RunEvent]:
        """Yield a run's events until it has ended. Survives outages of up to 30 s (see `cellsparse.runs.watch`)."""
        return runs.watch(self.connection, run_id, after, on_lost=on_lost, on_back=on_back)

    def cancel(self, run_id: str) -> orchestrator_pb2.Run:
        """Request the cancellation of a run. A run that has ended does not change."""
        return runs.cancel(self.connection, run_id)
