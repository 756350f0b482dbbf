"""Requests to an application in this process, without a server."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status_code: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class AsgiClient:
    """Calls one application."""

    def __init__(self, app) -> None:
        self._app = app

    def get(self, url: str) -> Answer:
        return self._call("GET", url, b"")

    def post(self, url: str, content: object) -> Answer:
        """Send an object as JSON."""
        return self._call("POST", url, json.dumps(content).encode())

    def _call(self, method: str, url: str, body: bytes) -> Answer:
        parts = urlsplit(url)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "server": ("testserver", 80),
            "path": unquote(parts.path),
            "root_path": "",
            "query_string": parts.query.encode(),
            "headers": [(b"host", b"testserver"), (b"content-type", b"application/json; charset=utf-8")],
        }
        sent = []

        async def receive() -> dict:
            return {"type": "http.request", "body": body}

        async def send(message: dict) -> None:
            sent.append(message)

        asyncio.run(self._app(scope, receive, send))
        headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        text = b"".join(message.get("body", b"") for message in sent[1:]).decode()
        return Answer(sent[0]["status"], headers, text)
