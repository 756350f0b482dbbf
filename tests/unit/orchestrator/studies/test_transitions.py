"""What a member has cost: the time its attempts have trained."""

from datetime import UTC, datetime, timedelta

import pytest

from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import AttemptRow, EventRow, RunRow
from cellsparse_orchestrator.studies.transitions import training_seconds

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds):
    return BEGAN + timedelta(seconds=seconds)


@pytest.fixture
def database(tmp_path):
    opened = Database(f"sqlite:///{tmp_path / 'a.db'}")
    yield opened
    opened.close()


def test_waits_and_pauses_are_not_training(database):
    run = RunRow(
        id="run-1",
        request_sha256="",
        name="",
        backend="unet",
        dataset_id="ds-1",
        settings="{}",
        max_attempts=3,
        state="SUCCEEDED",
        created_at=BEGAN,
    )
    events = [(1, "STARTING", 0), (1, "RUNNING", 100), (1, "RUNNING", 105), (1, "RETRYING", 110)]
    events += [(2, "STARTING", 500), (2, "RUNNING", 1000), (2, "SUCCEEDED", 1007)]
    with database.write() as session:
        session.add(run)
        session.flush()
        for sequence, (attempt, state, seconds) in enumerate(events, start=1):
            session.add(EventRow(run_id="run-1", sequence=sequence, time=at(seconds), state=state, attempt=attempt))
        for number, begun, ended in ((1, 0, 110), (2, 500, 1007), (3, 2000, 2001)):
            session.add(
                AttemptRow(run_id="run-1", number=number, state="FAILED", created_at=at(begun), ended_at=at(ended))
            )
    with database.read() as session:
        assert training_seconds(session, "run-1") == pytest.approx(17.0)  # the third attempt never began to train
        assert training_seconds(session, "run-2") == 0.0
