"""Studies: begin, watch, pause, report."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cellsparse import studies, study_grid
from cellsparse.calls.base import Calls
from cellsparse.reconnect import OnLost
from cellsparse.studies import StudyHandle
from cellsparse.study_report import StudyReport
from cellsparse_proto.v1 import study_pb2


class StudyCalls(Calls):
    """Studies: begin, watch, pause, report."""

    def study(
        self,
        dataset: str,
        *,
        preset: str = "",
        modes: Sequence[str] = (),
        backgrounds: Sequence[str] = (),
        k: Sequence[int | str] = (),
        backends: Sequence[str] = (),
        seeds: Sequence[int | str] = (),
        distance: int | None = None,
        settings: Mapping[str, Sequence[Any]] | None = None,
        split: str = "test",
        name: str = "",
        request_id: str = "",
        max_attempts: int | None = None,
        priority: int = 0,
    ) -> StudyHandle:
        """Start a study: one run for every combination of the given values.

        Args:
            dataset: Id of a dataset with dense labels; each combination of mode, background and k makes it sparse once.
            preset: "paper" gives axes that are left empty the paper's values: 108 members.
            modes: Of "min", "max", "minmax", "random"; modes, backgrounds and k all empty: the dataset's own labels.
            backgrounds: Of "none", "shifted", "ring", "all".
            k: Cells per image of the mode, 1 to 65,535; "all": every cell.
            backends: Of `training_settings.backends()`.
            seeds: Seeds of training, and of mode random; empty: 0.
            distance: Pixels, for shifted and ring; not given: 10.
            settings: Values by name of a training setting: {"preset": "paper", "steps": [100, 200]}; "unet.steps" holds
                for that backend alone. One value holds for all members.
            split: Scores the models with the dataset's dense labels: "test" or "val".
            name: Display name; empty: made from that of the dataset.
            request_id: Idempotency key: repeated calls with the same one create one study.
            max_attempts: Of each run, 1 to 10; not given: 3.
            priority: Of the runs, -100 to 100; larger starts earlier.

        Returns:
            A handle: `study.wait()`, `study.pause()`, `study.report().write(folder)`.
        """
        grid = study_grid.make_grid(
            preset=preset,
            modes=modes,
            backgrounds=backgrounds,
            k=k,
            backends=backends,
            seeds=seeds,
            distance=distance,
            settings=settings,
        )
        request = study_pb2.CreateStudyRequest(
            request_id=request_id,
            name=name,
            dataset_id=dataset,
            grid=grid,
            split=study_grid.split_number(split),
            priority=priority,
            max_attempts=max_attempts,
        )
        return studies.create(self.connection, request)

    def study_info(self, study_id: str) -> study_pb2.Study:
        """Return one study."""
        return studies.get(self.connection, study_id)

    def studies(self) -> Iterator[study_pb2.Study]:
        """Yield studies, newest first."""
        return studies.listed(self.connection)

    def study_members(self, study_id: str) -> Iterator[study_pb2.StudyMember]:
        """Yield a study's members in their order."""
        return studies.members(self.connection, study_id)

    def watch_study(
        self,
        study_id: str,
        after: int = 0,
        *,
        on_lost: OnLost = lambda *_: None,
        on_back: Callable[[], None] = lambda: None,
    ) -> Iterator[study_pb2.WatchStudyResponse]:
        """Yield a study with its changed members until it has ended. Survives outages of up to 30 s."""
        return studies.watch(self.connection, study_id, after, on_lost=on_lost, on_back=on_back)

    def pause_study(self, study_id: str) -> study_pb2.Study:
        """Start no more members. Those that are training continue."""
        return studies.change(self.connection, study_id, "Pause")

    def resume_study(self, study_id: str) -> study_pb2.Study:
        """Resume a paused study."""
        return studies.change(self.connection, study_id, "Resume")

    def cancel_study(self, study_id: str) -> study_pb2.Study:
        """Cancel all members that have not ended. A study that has ended does not change."""
        return studies.change(self.connection, study_id, "Cancel")

    def delete_study(self, study_id: str) -> None:
        """Delete a study that has ended. Its runs, models and label sets remain."""
        studies.delete(self.connection, study_id)

    def study_report(self, study_id: str) -> StudyReport:
        """Return a study's report; of a running study, the results so far."""
        return studies.report(self.connection, study_id)
