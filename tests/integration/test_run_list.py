"""Lists of runs, in both databases: what they show of the queue, and that a page is a fixed number of statements."""

import random

import pytest
from sqlalchemy import Engine, event, insert

from cellsparse_orchestrator.clock import now
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.db.tables import RunRow
from cellsparse_orchestrator.notifier import Notifier
from cellsparse_orchestrator.runs.queries import RunFilter, Runs
from cellsparse_proto.v1 import common_pb2

ALL = RunFilter()
RUNS = 120
STATES = ["QUEUED", "QUEUED", "QUEUED", "RUNNING", "RETRYING", "SUCCEEDED", "CANCELLED"]


@pytest.fixture
def database(database_url):
    chosen = random.Random(3)
    opened = Database(database_url)
    rows = [
        {
            "id": f"run-{number}",
            "request_sha256": "",
            "name": f"run {number}",
            "backend": chosen.choice(["unet", "cellpose"]),
            "dataset_id": chosen.choice(["ds-1", "ds-2"]),
            "settings": '{"unet": {}}',
            "max_attempts": 3,
            "priority": chosen.choice([-100, 0, 0, 0, 1, 100]),
            "state": chosen.choice(STATES),
            "created_at": now(),
        }
        for number in range(RUNS)
    ]
    with opened.write() as session:
        session.execute(insert(RunRow), rows)
    yield opened
    opened.close()


@pytest.fixture
def statements():
    """One entry for every statement that was executed."""
    seen = []

    def note(_connection, _cursor, statement, *_):
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


def pages(runs, size, chosen=ALL):
    token = ""
    while True:
        shown, token = runs.page(common_pb2.PageRequest(page_size=size, page_token=token), chosen)
        yield shown
        if not token:
            return


def test_positions_are_those_of_the_queue(database):
    runs = Runs(database, Notifier())
    listed = [run for page in pages(runs, 1000) for run in page]
    assert [run.id for run in listed] == [f"run-{number}" for number in reversed(range(RUNS))]
    queue = sorted(
        (run for run in reversed(listed) if run.state == common_pb2.RUN_STATE_QUEUED), key=lambda run: -run.priority
    )
    active = sum(run.state in (common_pb2.RUN_STATE_RUNNING, common_pb2.RUN_STATE_RETRYING) for run in listed)
    assert [run.queue_position for run in queue] == list(range(1, len(queue) + 1))
    assert [run.message for run in queue] == [f"waiting: {active + ahead} runs ahead" for ahead in range(len(queue))]
    assert all(run.queue_position == 0 for run in listed if run.state != common_pb2.RUN_STATE_QUEUED)


@pytest.mark.parametrize(
    "chosen",
    [
        ALL,
        RunFilter(backend="unet"),
        RunFilter(dataset_id="ds-1"),
        RunFilter(states=[common_pb2.RUN_STATE_QUEUED, common_pb2.RUN_STATE_CANCELLED]),
    ],
    ids=["all", "backend", "dataset", "states"],
)
def test_a_page_shows_runs_as_they_are_shown_alone(database, chosen):
    runs = Runs(database, Notifier())
    for page in pages(runs, 7, chosen):
        assert page == [runs.get(run.id) for run in page]
        assert page == runs.several([run.id for run in page])


def test_a_page_of_many_runs_takes_no_more_statements(database, statements):
    runs = Runs(database, Notifier())
    counts = set()
    for size in (10, 100):
        statements.clear()
        runs.page(common_pb2.PageRequest(page_size=size), ALL)
        counts.add(len(statements))
    assert len(counts) == 1


@pytest.mark.parametrize(
    ("index", "chosen"),
    [
        ("runs_of_backend", RunFilter(backend="unet")),
        ("runs_in_dataset", RunFilter(dataset_id="ds-1")),
        ("runs_of_state", RunFilter(states=[common_pb2.RUN_STATE_FAILED, common_pb2.RUN_STATE_CANCELLED])),
    ],
)
def test_a_list_has_an_index(database, database_url, index, chosen):
    if not database_url.startswith("sqlite"):
        pytest.skip("PostgreSQL plans by what it has counted in a table, and this one is too small")
    plans = []

    def explain(_connection, cursor, statement, parameters, *_):
        plans.extend(row[-1] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    runs = Runs(database, Notifier())
    event.listen(Engine, "after_cursor_execute", explain)
    try:
        runs.page(common_pb2.PageRequest(), chosen)
    finally:
        event.remove(Engine, "after_cursor_execute", explain)
    assert any(index in plan for plan in plans), plans
