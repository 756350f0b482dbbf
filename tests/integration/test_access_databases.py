"""Owners in both kinds of databases: those that a migration finds, and look-ups that hide what belongs to others."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from support.access import add_things

from cellsparse_common.errors import NotFound
from cellsparse_orchestrator.caller import Caller, acting
from cellsparse_orchestrator.catalogue.datasets import find_dataset
from cellsparse_orchestrator.catalogue.models import find_model
from cellsparse_orchestrator.db import migrate as migrate_module
from cellsparse_orchestrator.db.engine import open_engine
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.projects.rows import find_image, find_layer, find_project
from cellsparse_orchestrator.runs.rows import find_run
from cellsparse_orchestrator.studies.rows import find_study
from cellsparse_proto.v1 import rules_pb2

FINDERS = {
    "project_id": find_project,
    "image_id": find_image,
    "layer_id": find_layer,
    "dataset_id": find_dataset,
    "run_id": find_run,
    "model_id": find_model,
    "study_id": find_study,
}


def move(url, target):
    config = Config()
    config.set_main_option("script_location", str(Path(migrate_module.__file__).parent / "migrations"))
    with open_engine(url).connect().execution_options(writes=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        (command.downgrade if target == "0006" else command.upgrade)(config, target)


def test_what_was_trained_from_a_projects_annotations_belongs_to_it(database_url):
    database = Database(database_url)
    add_things(database, "pr-old")
    database.close()
    move(database_url, "0006")
    move(database_url, "head")
    with open_engine(database_url).connect() as connection:
        for table, owner in (("runs", "pr-old"), ("models", "pr-old"), ("datasets", "pr-old"), ("studies", None)):
            assert connection.execute(text(f"SELECT project_id FROM {table}")).scalars().all() == [owner]  # noqa: S608


@pytest.mark.parametrize("lock", [False, True])
def test_look_ups_hide_what_belongs_to_others(database_url, lock):
    database = Database(database_url)
    own, other = (add_things(database, project).ids for project in ("pr-own", "pr-other"))
    reader = Caller(token_id="token-1", name="reader", role=rules_pb2.ROLE_READER, project_id="pr-own")
    admin = Caller(token_id="token-2", name="admin", role=rules_pb2.ROLE_ADMIN, project_id="pr-own")
    for name, find in FINDERS.items():
        how = {"lock": True} if lock and find not in (find_model, find_layer) else {}
        for caller, seen in ((None, True), (admin, True), (reader, False)):
            with acting(caller), database.write() if lock else database.read() as session:
                assert find(session, own[name], **how).id == own[name]
                if seen:
                    assert find(session, other[name], **how).id == other[name]
                    continue
                with pytest.raises(NotFound):
                    find(session, other[name], **how)
    database.close()
