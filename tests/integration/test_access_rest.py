"""Every REST route x {no token, reader, annotator, admin} x {own, other project}, through a real gateway."""

import re
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute
from support.access import ADMIN, NOWHERE, add_things
from support.gateway import Gateway
from support.limits import PATIENCE
from support.orchestrator import Orchestrator

import cellsparse
from cellsparse_gateway.app import create_app
from cellsparse_gateway.calls import Orchestrator as Calls
from cellsparse_gateway.events import EventStreams
from cellsparse_gateway.middleware import is_open
from cellsparse_gateway.qupath import doors as qupath
from cellsparse_gateway.settings import GatewaySettings
from cellsparse_orchestrator.db.session import Database

LEVELS = {"reader": 1, "annotator": 2, "admin": 3}
ALL = "/api/v1"
READERS_POST = {
    "/images/{image}/prompt",
    "/projects/{project}/suggestions",
    "/datasets/{dataset}/suggestions",
    "/evaluations",
    "/models/{model}/predict",
}
"""Routes that change nothing, though they take a body."""
CHECKS = {"/prompters/{prompter}/check"}
KINDS = {
    "project": "project_id",
    "image": "image_id",
    "layer": "layer_id",
    "dataset": "dataset_id",
    "run": "run_id",
    "model": "model_id",
    "study": "study_id",
}
"""Ids in addresses, by the field of calls that holds them."""
OTHERS = {
    "level": "0",
    "x": "0",
    "y": "0",
    "plane": "0",
    "number": "1",
    "name": "word",
    "item": "word",
    "part": "encoder",
}


def routes():
    """Every route of the API as its description lists them, and those for QuPath, which it leaves out."""
    orchestrator, streams = Calls(NOWHERE, Path("/nowhere")), EventStreams()
    app = create_app(GatewaySettings(home=Path("/nowhere")), orchestrator, streams)
    found = [(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods]
    pending = list(qupath.router(orchestrator, list, 1.0, streams.closing).routes)
    while pending:
        route = pending.pop()
        inner = getattr(route, "original_router", None)
        pending += inner.routes if inner is not None else []
        if isinstance(route, APIRoute):
            found += [(method, route.path) for method in route.methods]
    orchestrator.close()
    return sorted({(method, path) for method, path in found if not is_open(method, path)})


ROUTES = routes()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    home = tmp_path_factory.mktemp("rest") / "home"
    settings = {
        "CELLSPARSE_LAUNCHER": "static",
        "CELLSPARSE_TRAINERS": f"unet={NOWHERE}",
        "CELLSPARSE_AUTH": "tokens",
        "CELLSPARSE_ADMIN_TOKEN": ADMIN,
    }
    with Orchestrator(home, **settings) as orchestrator, Gateway(home, CELLSPARSE_AUTH="tokens") as gateway:
        database = Database(f"sqlite:///{home / 'cellsparse.db'}")
        add_things(database, "pr-own")
        add_things(database, "pr-other")
        with cellsparse.Client(orchestrator.address, token=ADMIN) as admin:
            tokens = {role: admin.create_token(role, role, project="pr-own").secret for role in LEVELS}
        with httpx.Client(base_url=gateway.url, timeout=PATIENCE) as client:
            yield client, database, tokens
        database.close()


def ask(client, method, path, ids, token="", **more):
    def value(found):
        name = found[1].partition(":")[0]
        return ids[KINDS[name]] if name in KINDS else OTHERS.get(name, "word")

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = {"json": {}} if method in ("POST", "PATCH", "PUT") else {}
    with client.stream(method, re.sub(r"\{([^}]*)\}", value, path), headers=headers, **body, **more) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            return answer.status_code, ""
        try:
            answer.read()
        except httpx.RemoteProtocolError:  # an archive that has begun, of an image that is not in the store
            return answer.status_code, ""
        return answer.status_code, answer.text


def role_of(method, path):
    below = path.removeprefix(ALL)
    if method != "GET" and below.startswith("/prompters") and below not in CHECKS:
        return "admin"
    if method in ("GET", "HEAD") or below in READERS_POST | CHECKS or not path.startswith(ALL):
        return "reader"
    return "annotator"


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda each: each.strip("/").replace("/", "."))
def test_a_route_takes_its_role(world, method, path):
    client, database, tokens = world
    ids = add_things(database, "pr-own").ids
    assert ask(client, method, path, ids)[0] == 401
    assert ask(client, method, path, ids, "wrong")[0] == 401
    for role, token in tokens.items():
        own = add_things(database, "pr-own").ids if method != "GET" else ids
        if (method, path) == ("DELETE", f"{ALL}/projects/{{project}}"):
            own = {**own, "project_id": add_things(database, f"pr-{role}").project_id}
        status, text = ask(client, method, path, own, token)
        if LEVELS[role] < LEVELS[role_of(method, path)]:
            assert status in (403, 422), text  # a body that is refused comes no further than the gateway
        else:
            assert status not in (401, 403), text


@pytest.mark.parametrize(("method", "path"), ROUTES, ids=lambda each: each.strip("/").replace("/", "."))
def test_the_things_of_another_project_do_not_exist(world, method, path):
    client, database, tokens = world
    own, other = add_things(database, "pr-own").ids, add_things(database, "pr-other").ids
    for name in re.findall(r"\{([^}:]*)", path):
        assert name in KINDS or name in OTHERS or name in ("prompter", "path"), f"what does {name} in {path} name?"
        if name not in KINDS:
            continue
        field = KINDS[name]
        answers = {
            each: ask(client, method, path, {**own, field: each}, tokens["annotator"])
            for each in (other[field], "none-missing")
        }
        hidden, missing = (answers[each] for each in answers)
        assert hidden == (missing[0], missing[1].replace("none-missing", other[field]))
        assert hidden[0] in (404, 422), hidden


def test_lists_hold_what_is_the_projects(world):
    client, database, tokens = world
    own, other = add_things(database, "pr-own").ids, add_things(database, "pr-other").ids
    for path, name in (("projects", "project_id"), ("datasets", "dataset_id"), ("runs", "run_id")):
        text = ask(client, "GET", f"{ALL}/{path}", {}, tokens["reader"])[1]
        assert f'"{own[name]}"' in text
        assert f'"{other[name]}"' not in text


def test_the_page_signs_in_with_a_cookie(world):
    client, _, tokens = world
    site = {"Origin": str(client.base_url).rstrip("/")}
    assert client.get("/").status_code == 200
    assert client.get(f"{ALL}/session").headers["www-authenticate"] == "Bearer"
    assert client.post(f"{ALL}/session", json={"token": "wrong"}, headers=site).status_code == 401
    for body in ({}, [], {"token": 1}, {"token": "two words"}, {"token": "a\nb"}, {"token": "\u00e9" * 9}):
        assert client.post(f"{ALL}/session", json=body, headers=site).status_code == 422
    for shown in ({"Authorization": "Bearer a b"}, {"Cookie": 'cellsparse_token="a\\012b"'}):
        assert client.get(f"{ALL}/projects", headers=shown).status_code == 401
    foreign = {"Origin": "https://elsewhere.example"}
    assert client.post(f"{ALL}/session", json={"token": tokens["reader"]}, headers=foreign).status_code == 403
    with httpx.Client(base_url=client.base_url, timeout=PATIENCE) as page:
        answer = page.post(f"{ALL}/session", json={"token": tokens["reader"]}, headers=site)
        assert answer.json()["role"] == "ROLE_READER"
        flags = answer.headers["set-cookie"]
        assert "HttpOnly" in flags
        assert "SameSite=strict" in flags
        assert page.get(f"{ALL}/projects").status_code == 200
        assert page.post(f"{ALL}/projects", json={"name": "more"}, headers=site).status_code == 403
        assert page.delete(f"{ALL}/session", headers=site).status_code == 204
        assert page.get(f"{ALL}/projects").status_code == 401


def test_the_record_says_where_a_request_came_from(world, tmp_path):
    client, _, tokens = world
    headers = {"Authorization": f"Bearer {tokens['annotator']}"}
    made = client.post(f"{ALL}/projects", json={"name": "seen"}, headers=headers).json()
    lines = client.get("/healthz")
    assert lines.status_code == 200
    with cellsparse.Client(orchestrator_address(world), token=ADMIN) as admin:
        change = next(each for each in admin.changes() if made["id"] in each.subject)
    assert change.source == "127.0.0.1 by 127.0.0.1"


def orchestrator_address(world):
    client, _, tokens = world
    status = client.get(f"{ALL}/status", headers={"Authorization": f"Bearer {tokens['reader']}"}).json()
    return next(each["address"] for each in status["services"] if each["name"] == "orchestrator")
