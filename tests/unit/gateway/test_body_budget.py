"""Bodies of all requests together are bounded, and one that pauses for long is ended."""

import asyncio
import json

import pytest
from fastapi import FastAPI, Request

from cellsparse_common.errors import Busy
from cellsparse_gateway import middleware, problems
from cellsparse_gateway.body_budget import SMALL_BYTES, BodyBudget, HeldBody
from cellsparse_gateway.middleware import BodyLimit
from cellsparse_gateway.uploads import read_body, spooled

MIB = 2**20


def application(budget, opened):
    app = FastAPI()
    problems.add_handlers(app)
    app.add_middleware(BodyLimit, max_mib=8, budget=budget)

    @app.post("/kept")
    async def kept(request: Request):
        size = len(await read_body(request, 8))
        await opened.wait()
        return {"size": size, "taken": budget.taken}

    @app.post("/spooled")
    async def on_disk(request: Request):
        async with spooled(request) as file:
            return {"size": len(file.read()), "taken": budget.taken}

    @app.post("/passed")
    async def passed(request: Request):
        size = sum([len(part) async for part in request.stream()])
        return {"size": size, "taken": budget.taken}

    return app


async def post(app, path, parts):
    """Send parts of a body; return status, headers and the JSON answer."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent = []

    async def receive():
        if messages:
            return messages.pop(0)
        return await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "http_version": "1.1"}
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(body)


def test_a_body_that_does_not_fit_beside_others_is_refused_until_they_are_done():
    budget = BodyBudget(5 * MIB)

    async def main():
        opened = asyncio.Event()
        app = application(budget, opened)
        first = asyncio.ensure_future(post(app, "/kept", [bytes(MIB)] * 3))
        while budget.taken < 3 * MIB:
            await asyncio.sleep(0)
        status, headers, answer = await post(app, "/spooled", [bytes(MIB)] * 3)
        assert (status, headers[b"retry-after"]) == (429, b"5")
        assert "CELLSPARSE_GATEWAY_MAX_BODIES_MIB" in answer["detail"]
        assert budget.taken == 3 * MIB
        assert (await post(app, "/passed", [bytes(MIB)] * 6))[2] == {"size": 6 * MIB, "taken": 3 * MIB}
        assert (await post(app, "/spooled", [bytes(1000)]))[2] == {"size": 1000, "taken": 3 * MIB}
        opened.set()
        assert (await first)[0] == 200
        assert budget.taken == 0
        assert (await post(app, "/spooled", [bytes(MIB)] * 3))[2] == {"size": 3 * MIB, "taken": 3 * MIB}
        assert budget.taken == 0

    asyncio.run(main())


def test_a_body_that_pauses_for_long_is_ended(monkeypatch):
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.05)
    budget = BodyBudget(5 * MIB)

    async def main():
        app = application(budget, asyncio.Event())
        sent = []
        parts = [{"type": "http.request", "body": bytes(2 * MIB), "more_body": True}]

        async def receive():
            if parts:
                return parts.pop()
            return await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/kept", "headers": [], "query_string": b""}
        await app({**scope, "http_version": "1.1"}, receive, send)
        assert sent[0]["status"] == 408

    asyncio.run(main())
    assert budget.taken == 0


def test_small_bodies_do_not_count_and_none_is_taken_that_does_not_fit():
    budget = BodyBudget(2 * MIB)
    held = HeldBody(budget)
    held.grow(SMALL_BYTES)
    assert budget.taken == 0
    held.grow(1)
    assert budget.taken == SMALL_BYTES + 1
    with pytest.raises(Busy, match="hold 1,048,577 of the 2,097,152 bytes"):
        held.grow(MIB)
    assert budget.taken == SMALL_BYTES + 1
    held.drop()
    assert budget.taken == 0
