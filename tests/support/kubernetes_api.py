"""A small HTTP server that plays the Kubernetes API's lists and watches as a test tells it to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from support.limits import PATIENCE

Object = dict


def thing(name: str, version: int, **metadata) -> Object:
    return {"metadata": {"name": name, "resourceVersion": str(version), **metadata}}


def event(kind: str, found: Object) -> Object:
    return {"type": kind, "object": found}


class Api:
    """Answers GET requests from a script that is written before them; a watch that is not in it has no news.

    Attributes:
        asked: Query parameters of all GET requests so far, oldest first.
        posted: Code and message that answer every POST request.
        deleted: Paths of all DELETE requests so far, all of which succeed.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.posted = (503, "the script has no such answer")
        self.deleted: list[str] = []
        self._answers: dict[bool, list[Callable]] = {False: [], True: []}
        self._more = threading.Condition()
        self._closed = False

    def lists(self) -> list[dict[str, str]]:
        return [one for one in self.asked if "watch" not in one]

    def watches(self) -> list[dict[str, str]]:
        return [one for one in self.asked if "watch" in one]

    def page(self, *items: Object, version: int, token: str = "") -> None:
        """Answer the next list with these items."""
        body = {"items": list(items), "metadata": {"resourceVersion": str(version), "continue": token}}
        self._add(False, lambda handler: handler.whole(200, body))

    def refuse(self, code: int, message: str, *, watch: bool, times: int = 1) -> None:
        """Answer the next list or watch with an error."""
        for _ in range(times):
            self._add(watch, lambda handler: handler.whole(code, {"message": message}))

    def stream(self, *events: Object, end: str = "stay", cut: int = 2**20) -> None:
        """Answer the next watch with events, sent in chunks of `cut` bytes, and then stay, end, or break off."""
        data = b"".join(json.dumps(one).encode() + b"\n" for one in events)
        self._add(True, lambda handler: handler.chunks(data, end, cut))

    def raw_stream(self, data: bytes, end: str) -> None:
        self._add(True, lambda handler: handler.chunks(data, end, 2**20))

    def answer(self, handler: "_Handler", query: dict[str, str]) -> None:
        watch = "watch" in query
        with self._more:
            self.asked.append(query)
            self._more.notify_all()
            answer = self._answers[watch].pop(0) if self._answers[watch] else None
        if answer is not None:
            answer(handler)
        elif watch:
            handler.chunks(b"", "stay", 1)
        else:
            handler.whole(503, {"message": "the script has no such answer"})

    def hold(self) -> None:
        """Keep a watch open until the end of the test."""
        with self._more:
            self._more.wait_for(lambda: self._closed, 30)

    def until(self, done: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until something is so after a request; fail when the time is over."""
        with self._more:
            assert self._more.wait_for(done, seconds), f"it did not happen; asked so far: {self.asked}"

    def _add(self, watch: bool, answer: Callable) -> None:
        self._answers[watch].append(answer)

    def close(self) -> None:
        with self._more:
            self._closed = True
            self._more.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: Api

    def do_GET(self) -> None:
        query = {key: values[-1] for key, values in parse_qs(urlsplit(self.path).query).items()}
        self.api.answer(self, query)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        code, message = self.api.posted
        self.whole(code, {"message": message})

    def do_DELETE(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.api.deleted.append(urlsplit(self.path).path)
        self.whole(200, {"kind": "Status", "status": "Success"})

    def whole(self, code: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def chunks(self, data: bytes, end: str, cut: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for begin in range(0, len(data), cut):
            part = data[begin : begin + cut]
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()
        if end == "stay":
            self.api.hold()
        elif end == "end":
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = end != "end"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serving_api() -> Iterator[tuple[Api, str]]:
    """Yield the script and the server's URL."""
    api = Api()
    handler = type("Handler", (_Handler,), {"api": api})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        api.close()
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)
