"""A real orchestrator that takes the tokens of an identity provider on loopback."""

import pytest
from support.access import ADMIN, NOWHERE, add_things, call
from support.identity_provider import AUDIENCE, IdentityProvider
from support.orchestrator import Orchestrator, until

from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import access_pb2, dataset_pb2

ACCESS = access_pb2.DESCRIPTOR.services_by_name["AccessService"].methods_by_name
DATASETS = dataset_pb2.DESCRIPTOR.services_by_name["DatasetService"].methods_by_name


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    home = tmp_path_factory.mktemp("oidc") / "home"
    with IdentityProvider() as provider:
        settings = {
            "CELLSPARSE_LAUNCHER": "static",
            "CELLSPARSE_TRAINERS": f"unet={NOWHERE}",
            "CELLSPARSE_AUTH": "tokens",
            "CELLSPARSE_ADMIN_TOKEN": ADMIN,
            "CELLSPARSE_OIDC_ISSUER": provider.issuer,
            "CELLSPARSE_OIDC_AUDIENCE": AUDIENCE,
        }
        with Orchestrator(home, **settings) as orchestrator:
            database = Database(f"sqlite:///{home / 'cellsparse.db'}")
            for project in ("pr-own", "pr-other"):
                add_things(database, project)
            database.close()
            until(lambda: who(orchestrator.address, provider.sign(project="pr-own"))[0] == "OK")
            yield provider, orchestrator.address


def who(address, token):
    status, sentence, answers = call(address, ACCESS["GetCaller"], [access_pb2.GetCallerRequest()], token)
    return status, (answers[0].name, answers[0].project_id) if answers else sentence


def test_tokens_of_the_provider_open_their_own_project(world):
    provider, address = world
    own = provider.sign(project="pr-own")
    assert who(address, own) == ("OK", ("ann", "pr-own"))
    for project, expected in (("pr-own", "OK"), ("pr-other", "NOT_FOUND")):
        request = dataset_pb2.GetDatasetRequest(dataset_id=f"ds-{project}")
        assert call(address, DATASETS["GetDataset"], [request], own)[0] in (expected, "NOT_FOUND")
    listed = call(address, DATASETS["ListDatasets"], [dataset_pb2.ListDatasetsRequest()], own)[2][0].datasets
    others = provider.sign(project="pr-other")
    hidden = call(address, DATASETS["ListDatasets"], [dataset_pb2.ListDatasetsRequest()], others)[2][0].datasets
    assert listed
    assert not {each.id for each in listed} & {each.id for each in hidden}


def test_roles_hold_and_changes_are_recorded_under_the_subject(world):
    provider, address = world
    status, sentence, _ = call(
        address, ACCESS["ListTokens"], [access_pb2.ListTokensRequest()], provider.sign(project="pr-own")
    )
    assert (status, "takes the role admin" in sentence) == ("PERMISSION_DENIED", True)
    administrator = provider.sign(roles="cellsparse-admin", project=None, sub="u-2", preferred_username="root")
    request = access_pb2.CreateTokenRequest(name="made", role="ROLE_READER", project="pr-own")
    assert call(address, ACCESS["CreateToken"], [request], administrator)[0] == "OK"
    found = call(address, ACCESS["ListChanges"], [access_pb2.ListChangesRequest(token_id="oidc-u-2")], administrator)
    assert [(each.name, each.method) for each in found[2][0].changes] == [("root", "AccessService/CreateToken")]


def test_tokens_without_a_project_of_this_server_open_nothing(world):
    provider, address = world
    for project, sentence in (("unknown", "There is no project 'unknown'"), (None, "names no project")):
        status, message = who(address, provider.sign(project=project))
        assert (status, sentence in message) == ("UNAUTHENTICATED", True)
    assert who(address, ADMIN)[0] == "OK"
