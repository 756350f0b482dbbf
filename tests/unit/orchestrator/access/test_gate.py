"""The check of a call, with the tables in a database of their own."""

import pytest

from cellsparse_common.errors import NotFound, PermissionDenied, Unauthenticated
from cellsparse_orchestrator.access.changes import Changes
from cellsparse_orchestrator.access.gate import Gate
from cellsparse_orchestrator.access.tokens import Tokens, digest
from cellsparse_orchestrator.caller import current, only_project
from cellsparse_orchestrator.db.session import Database
from cellsparse_orchestrator.projects.projects import Projects
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, rules_pb2

LOOK = "/cellsparse.v1.DatasetService/GetDataset"
CHANGE = "/cellsparse.v1.DatasetService/DeleteDataset"
PEER = "ipv4:192.0.2.7:55555"


@pytest.fixture
def database(tmp_path):
    opened = Database(f"sqlite:///{tmp_path / 'access.db'}")
    yield opened
    opened.close()


@pytest.fixture
def tokens(database):
    return Tokens(database)


@pytest.fixture
def changes(database):
    return Changes(database, days=1)


def gate(tokens, changes, **more):
    return Gate(tokens, changes, **more)


def bearer(secret):
    return {"authorization": f"Bearer {secret}"}


def lines(changes):
    return [(each.name, each.method, each.subject, each.source, each.result) for each in all_changes(changes)]


def all_changes(changes):
    return changes.page(common_pb2.PageRequest(), "", "")[0]


def annotator(database, tokens):
    project = Projects(database, None).add("nuclei")
    return project.id, *tokens.add("Ann", rules_pb2.ROLE_ANNOTATOR, project.id)


def test_a_call_is_made_for_its_caller_and_only_while_it_runs(database, tokens, changes):
    project_id, token, secret = annotator(database, tokens)
    with gate(tokens, changes).open(LOOK, bearer(secret), PEER):
        assert current().token_id == token.id
        assert only_project() == project_id
    assert current() is None
    assert only_project() is None


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer ", "Basic abc", "Bearer wrong", "wrong"])
def test_who_shows_no_valid_token_is_nobody(tokens, changes, shown):
    opened = gate(tokens, changes, admin_token="a" * 32).open(CHANGE, {"authorization": shown}, PEER)
    with pytest.raises(Unauthenticated), opened:
        pass
    assert lines(changes) == []


def test_the_token_of_the_settings_is_an_administrators(tokens, changes):
    with gate(tokens, changes, admin_token="a" * 32).open(LOOK, {"authorization": f"bearer {'a' * 32} "}, PEER):
        assert current().role == rules_pb2.ROLE_ADMIN
        assert only_project() is None


@pytest.mark.parametrize("method", ["/cellsparse.v1.TrainerService/Predict", "/cellsparse.v1.Nothing/AtAll"])
def test_what_is_for_no_client_or_has_no_rule_is_refused(tokens, changes, method):
    opened = gate(tokens, changes, admin_token="a" * 32).open(method, bearer("a" * 32), PEER)
    with pytest.raises(PermissionDenied, match="is for no client"), opened:
        pass


def test_a_change_is_recorded_with_its_result_and_where_it_came_from(database, tokens, changes):
    _, _, secret = annotator(database, tokens)
    opened = gate(tokens, changes)
    request = dataset_pb2.DeleteDatasetRequest(dataset_id="ds-1")

    def fail():
        with opened.open(CHANGE, bearer(secret), PEER) as record:
            record.asked(request)
            raise NotFound("There is none.")

    with pytest.raises(NotFound):
        fail()
    forwarded = {**bearer(secret), "x-forwarded-for": "198.51.100.9"}
    with opened.open(CHANGE, forwarded, "ipv6:[::1]:5") as record:
        record.asked(request)
    with opened.open(LOOK, bearer(secret), PEER):
        pass
    assert lines(changes) == [
        ("Ann", "DatasetService/DeleteDataset", "dataset_id=ds-1", "198.51.100.9 by ::1", "OK"),
        ("Ann", "DatasetService/DeleteDataset", "dataset_id=ds-1", "192.0.2.7", "NOT_FOUND"),
    ]


def test_an_open_stream_ends_when_its_token_does(database, tokens, changes):
    _, token, secret = annotator(database, tokens)
    patient, strict = (gate(tokens, changes, recheck_seconds=seconds) for seconds in (3600.0, 0.0))
    with patient.open(LOOK, bearer(secret), PEER) as later, strict.open(LOOK, bearer(secret), PEER) as record:
        record.sending(dataset_pb2.GetDatasetResponse())
        tokens.revoke(token.id)
        later.sending(dataset_pb2.GetDatasetResponse())
        with pytest.raises(Unauthenticated, match="was revoked"):
            record.sending(dataset_pb2.GetDatasetResponse())


def test_a_secret_is_stored_as_its_hash_alone(tokens):
    token, secret = tokens.add("root", rules_pb2.ROLE_ADMIN)
    assert tokens.find(digest(secret)) is None
    assert tokens.find(secret).caller.token_id == token.id
    assert len(secret) > 43
    assert secret not in str(tokens.page(common_pb2.PageRequest()))


def test_a_change_names_all_that_it_made_and_a_look_nothing(database, tokens, changes):
    _, _, secret = annotator(database, tokens)
    runs = [orchestrator_pb2.Run(id=f"run-{number:012x}") for number in range(100)]
    many = "/cellsparse.v1.OrchestratorService/CreateRuns"
    with gate(tokens, changes).open(many, bearer(secret), PEER) as record:
        record.answered(orchestrator_pb2.CreateRunsResponse(runs=runs))
    assert [line[2] for line in lines(changes)] == ["runs=" + ",".join(run.id for run in runs)]
    with gate(tokens, changes).open(LOOK, bearer(secret), PEER) as record:
        record.answered(orchestrator_pb2.ListRunsResponse(runs=runs))
    assert record.subject == ""
