"""Every call x {no token, reader, annotator, admin} x {own, other project}, against a real orchestrator."""

import json

import pytest
from google.protobuf import json_format
from support.access import ADMIN, NOWHERE, add_things, call, names_of, request_of, unknown_fields
from support.orchestrator import Orchestrator

from cellsparse_common.rpc.call_rules import call_rule
from cellsparse_orchestrator.db.session import Database
from cellsparse_proto.v1 import (
    access_pb2,
    admin_pb2,
    dataset_pb2,
    orchestrator_pb2,
    project_pb2,
    prompter_pb2,
    rules_pb2,
    study_pb2,
    upload_pb2,
)

FILES = (access_pb2, admin_pb2, dataset_pb2, orchestrator_pb2, project_pb2, prompter_pb2, study_pb2, upload_pb2)
METHODS = [
    method for file in FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods
]
ROLES = {"reader": rules_pb2.ROLE_READER, "annotator": rules_pb2.ROLE_ANNOTATOR, "admin": rules_pb2.ROLE_ADMIN}
NO_IDS_OF_THINGS = {
    "request_id",
    "token_id",
    "transfer_id",
    "parent_id",
    "val_image_ids",
    "test_image_ids",
    "model_ids",
}
"""Checked by tests of their own, or no ids of what belongs to a project."""
REFUSED = {"UNAUTHENTICATED", "PERMISSION_DENIED"}


class World:
    """The server, its database, and a token of each role of project `own`."""

    def __init__(self, orchestrator, database, tokens):
        self.address = orchestrator.address
        self.orchestrator = orchestrator
        self.database = database
        self.tokens = tokens

    def call(self, method, messages, token=""):
        return call(self.address, method, messages, token)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    home = tmp_path_factory.mktemp("access") / "home"
    settings = {
        "CELLSPARSE_LAUNCHER": "static",
        "CELLSPARSE_TRAINERS": f"unet={NOWHERE}",
        "CELLSPARSE_AUTH": "tokens",
        "CELLSPARSE_ADMIN_TOKEN": ADMIN,
    }
    with Orchestrator(home, **settings) as orchestrator:
        database = Database(f"sqlite:///{home / 'cellsparse.db'}")
        add_things(database, "pr-own")
        add_things(database, "pr-other")
        tokens = {role: create_token(orchestrator.address, role, "pr-own" if role != "admin" else "") for role in ROLES}
        yield World(orchestrator, database, tokens)
        database.close()


def create_token(address, role, project, **more):
    method = named("CreateToken")
    request = access_pb2.CreateTokenRequest(name=f"the {role}", role=ROLES[role], project=project, **more)
    status, sentence, answers = call(address, method, [request], ADMIN)
    assert status == "OK", sentence
    return answers[0].secret


def named(name):
    return next(method for method in METHODS if method.name == name)


def rule_of(method):
    return call_rule(f"/{method.containing_service.full_name}/{method.name}")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_call_takes_its_role(world, method):
    rule = rule_of(method)
    things = add_things(world.database, "pr-own")
    assert world.call(method, request_of(method, things.ids))[0] == "UNAUTHENTICATED"
    assert world.call(method, request_of(method, things.ids), "wrong")[0] == "UNAUTHENTICATED"
    for role, number in ROLES.items():
        ids = add_things(world.database, "pr-own").ids if rule.changes else things.ids
        if method.name == "DeleteProject":
            ids = {**ids, "project_id": add_things(world.database, f"pr-{role}").project_id}
        status, sentence, _ = world.call(method, request_of(method, ids), world.tokens[role])
        if number < rule.role:
            assert status == "PERMISSION_DENIED", sentence
            assert f"takes the role {rules_pb2.Role.Name(rule.role).removeprefix('ROLE_').lower()}" in sentence
        elif method.name == "DeleteProject" and role != "admin":
            assert status == "NOT_FOUND"
        else:
            assert status not in REFUSED, sentence
            assert status != "NOT_FOUND" or is_about_nothing_owned(sentence), sentence


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_things_of_another_project_do_not_exist(world, method):
    if rule_of(method).scope != rules_pb2.SCOPE_PROJECT:
        return
    own, other = add_things(world.database, "pr-own").ids, add_things(world.database, "pr-other").ids
    assert unknown_fields(method, own, NO_IDS_OF_THINGS) == []
    for name in names_of(method, own):
        missing = f"{other[name].partition('-')[0]}-missing"
        answers = {
            each: world.call(method, request_of(method, {**own, name: each}), world.tokens["annotator"])
            for each in (other[name], missing)
        }
        assert masked(answers[other[name]], other[name]) == masked(answers[missing], missing)
        if method.name == "ListRuns":  # a filter
            assert answers[missing][0] == "OK"
            continue
        assert answers[missing][0] == "NOT_FOUND", (name, answers)
        if not rule_of(method).changes:
            status, sentence, _ = world.call(method, request_of(method, other), world.tokens["admin"])
            assert status != "NOT_FOUND" or is_about_nothing_owned(sentence), sentence


def is_about_nothing_owned(sentence):
    """The rows of these tests have nothing in the store; there is no token of that id, and admins have no alias."""
    return sentence.startswith("There is no object") or "word'" in sentence


def masked(answer, value):
    return json.loads(json.dumps([answer[0], answer[1].replace(value, "ID"), [str(each) for each in answer[2]]]))


@pytest.mark.parametrize(
    "method", [each for each in METHODS if each.name.startswith("List")], ids=lambda each: each.name
)
def test_lists_hold_what_is_the_projects(world, method):
    if rule_of(method).scope != rules_pb2.SCOPE_PROJECT:
        return
    own, other = add_things(world.database, "pr-own").ids, add_things(world.database, "pr-other").ids
    asked = {name: value for name, value in own.items() if name != "dataset_id" or "Items" in method.name}
    seen = {
        role: "".join(
            json_format.MessageToJson(each) for each in world.call(method, request_of(method, asked), token)[2]
        )
        for role, token in world.tokens.items()
    }
    for role in ("reader", "annotator"):
        assert not any(f'"{value}"' in seen[role] for value in other.values())
    if method.name in ("ListDatasets", "ListRuns", "ListModels", "ListStudies", "ListProjects"):
        mine = {"ListProjects": "project_id", "ListStudies": "study_id", "ListDatasets": "dataset_id"}
        name = mine.get(method.name, "run_id")
        assert f'"{own[name]}"' in seen["reader"]
        assert f'"{other[name]}"' in seen["admin"]
