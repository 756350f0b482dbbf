"""A real gateway process in front of a real orchestrator, and what its tests say to it."""

import base64
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from support.limits import PATIENCE
from support.server_process import ServerProcess


class Gateway(ServerProcess):
    """`with Gateway(home) as gateway:` gives one that answers; it reads the orchestrator's address from `home`.

    Attributes:
        url: http://host:port.
        api: The same with /api/v1.
    """

    def __init__(self, home: Path, **environment: str) -> None:
        work = home / "gateway"
        work.mkdir(parents=True, exist_ok=True)
        settings = {
            "CELLSPARSE_HOME": str(home),
            "CELLSPARSE_GATEWAY_PORT": "0",
            "CELLSPARSE_GATEWAY_ADDRESS_FILE": str(work / "address"),
            **environment,
        }
        super().__init__(["-m", "cellsparse_gateway"], home / "store", work, **settings)

    def __enter__(self) -> "Gateway":
        super().__enter__()
        self.url = f"http://{self.address}"
        self.api = f"{self.url}/api/v1"
        return self


class Event(NamedTuple):
    """One Server-Sent Event."""

    id: str
    name: str
    data: str


def read_events(client: httpx.Client, path: str, *, timeout: float = PATIENCE, **request) -> Iterator[Event]:
    """Yield the events of a stream until it ends."""
    with client.stream("GET", path, timeout=timeout, **request) as answer:
        answer.raise_for_status()
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            if "event" in fields:
                yield Event(fields.get("id", ""), fields["event"], fields["data"])
            fields = {}


class Marks:
    """Edits of one image's annotation."""

    def __init__(self, client: httpx.Client, image_id: str) -> None:
        self._client = client
        self._image_id = image_id

    def request(self, x: int, y: int, numbers: np.ndarray, *, author: str = "tester", base: int | None = None) -> dict:
        """The body that writes label numbers at a place."""
        if base is None:
            base = self._client.get(f"/images/{self._image_id}").json()["revision"]
        data = base64.b64encode(zlib.compress(numbers.astype("<u4").tobytes())).decode()
        height, width = numbers.shape
        patch = {"x": x, "y": y, "width": width, "height": height, "plane": 0, "data": data}
        return {"base_revision": base, "author": author, "patches": [patch]}

    def add(self, x: int, y: int, numbers: np.ndarray) -> dict:
        """Write label numbers; return the answer."""
        answer = self._client.post(f"/images/{self._image_id}/edits", json=self.request(x, y, numbers))
        return answer.raise_for_status().json()
