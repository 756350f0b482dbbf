"""The layout's second version: models of finished runs stay, and models without a run fit in."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from cellsparse_orchestrator.catalogue.models import Models
from cellsparse_orchestrator.db import migrate as migrate_module
from cellsparse_orchestrator.db.engine import open_engine
from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import common_pb2

RUN = """INSERT INTO runs (id, request_sha256, name, backend, dataset_id, settings, priority, max_attempts, state,
reason, message, attempts, interruptions, cancel_requested, created_at, last_sequence, progress, validation)
VALUES ('run-1', '', 'old', 'unet', 'ds-1', '{}', 0, 3, 'SUCCEEDED',
'', '', 1, 0, false, '2026-01-01 00:00:00', 0, '', '')"""
MODEL = """INSERT INTO models (number, id, name, backend, dataset_id, created_at, step, validation)
VALUES (7, 'run-1', 'old', 'unet', 'ds-1', '2026-01-01 00:00:00', 5, '{"score": 0.5}')"""


def move(url, target):
    config = Config()
    config.set_main_option("script_location", str(Path(migrate_module.__file__).parent / "migrations"))
    with open_engine(url).connect().execution_options(writes=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        (command.downgrade if target == "0001" else command.upgrade)(config, target)


def test_models_of_runs_stay_and_imported_ones_fit_in(database_url):
    Database(database_url).close()
    move(database_url, "0001")
    with open_engine(database_url).connect().execution_options(writes=True) as connection, connection.begin():
        connection.exec_driver_sql(RUN)
        connection.exec_driver_sql(MODEL)
        if connection.dialect.name == "postgresql":  # SQLite counts on from the largest number by itself
            connection.execute(text("SELECT setval('models_number_seq', 7)"))
    database = Database(database_url)
    assert database.migration.before == "0001"
    models = Models(database)
    made = models.add_imported("model-1", "stock", "cellpose")
    assert (made.id, made.dataset_id, made.initial_model) == ("model-1", "", "")
    listed, _ = models.page(common_pb2.PageRequest(), "")
    assert [model.id for model in listed] == ["model-1", "run-1"]
    assert (listed[1].step, dict(listed[1].validation)) == (5, {"score": 0.5})
    database.close()
    move(database_url, "0001")
    with open_engine(database_url).connect() as connection:
        assert connection.execute(text("SELECT number, id FROM models")).fetchall() == [(7, "run-1")]
