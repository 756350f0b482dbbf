"""Many people at once on one gateway: tiles, strokes and trainings, with real services on loopback.

Each person has a project with an image of 2048 x 2048 pixels. In turns of two seconds they look at a part of it (six
tiles of labels, and those of pixels that they have not seen: a browser keeps them) and save a stroke of 64 x 64 pixels.
Some train meanwhile. Shown are the times of a stroke's save as a browser sees them, the memory of the gateway, and the
processor time of both servers and of the people themselves.
"""

import argparse
import base64
import http.client
import json
import random
import statistics
import tempfile
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import psutil
from support.gateway import Gateway
from support.interrupts import sigterm_interrupts
from support.orchestrator import Orchestrator

from cellsparse_common.imaging.images import encode_tiff

SIDE, TILE, STROKE = 2048, 512, 64
AIM_MS, AIM_MIB = 100.0, 500.0


class Person(threading.Thread):
    """Somebody who annotates an image.

    Args:
        address: host:port of the gateway.
        number: Their number; also the seed of what they do.
        seconds: How long they work.
        turn: Seconds from one stroke to the next.
        trains: Whether they start a training in the middle.
    """

    def __init__(self, address: str, number: int, seconds: float, *, turn: float, trains: bool) -> None:
        super().__init__(name=f"person-{number}")
        self.saves: list[float] = []
        self.views: list[float] = []
        self.error = ""
        self._connection = http.client.HTTPConnection(address, timeout=300)
        self._random = random.Random(number)
        self._seconds = seconds
        self._trains = trains
        self._turn = turn
        self._seen: set[tuple[int, int]] = set()
        self._name = f"person-{number}"

    def ask(self, method: str, path: str, body: bytes | dict[str, object] | None = None) -> tuple[int, bytes]:
        """Make one request and return status and content."""
        headers = {"Accept-Encoding": "deflate"}
        if isinstance(body, dict):
            body, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        self._connection.request(method, f"/api/v1{path}", body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status >= 400 and answer.status != 409:
            raise RuntimeError(f"{method} {path}: {answer.status} {content[:300]!r}")
        return answer.status, content

    def prepare(self, image: bytes) -> None:
        """Make a project with the image."""
        self._project = json.loads(self.ask("POST", "/projects", {"name": self._name})[1])["id"]
        self._image = json.loads(self.ask("POST", f"/projects/{self._project}/images?name=cells.tif", image)[1])["id"]

    def run(self) -> None:
        """Work until the time is up."""
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - shown at the end
            self.error = f"{self._name}: {error}"

    def _work(self) -> None:
        revision = 0
        begin = time.monotonic()
        time.sleep(self._random.uniform(0.0, self._turn))  # people are not in step
        while (now := time.monotonic()) < begin + self._seconds:
            if self._trains and now > begin + self._seconds / 3 and revision:
                self._trains = False
                body = {"backend": "unet", "settings": {"steps": 40, "learning_rate": 0.9}}
                self.ask("POST", f"/projects/{self._project}/train", body)
            self._look()
            revision = self._save(revision)
            time.sleep(max(0.0, now + self._turn - time.monotonic()))

    def _look(self) -> None:
        x, y = self._random.randrange(SIDE // TILE - 1), self._random.randrange(SIDE // TILE - 2)
        for column in (x, x + 1):
            for row in (y, y + 1, y + 2):
                begin = time.monotonic()
                if (column, row) not in self._seen:
                    self._seen.add((column, row))
                    self.ask("GET", f"/images/{self._image}/tiles/0/{column}/{row}")
                self.ask("GET", f"/images/{self._image}/labels/tiles/0/{column}/{row}")
                self.views.append(time.monotonic() - begin)

    def _save(self, revision: int) -> int:
        x, y = (self._random.randrange(SIDE - STROKE) for _ in range(2))
        rows, columns = np.mgrid[:STROKE, :STROKE] - STROKE / 2
        labels = np.where(rows**2 + columns**2 < (STROKE / 2) ** 2, 0x80000000, 0xFFFFFFFF).astype("<u4")
        data = base64.b64encode(zlib.compress(labels.tobytes(), 1)).decode()
        patch = {"x": x, "y": y, "width": STROKE, "height": STROKE, "plane": 0, "data": data}
        body = {"base_revision": revision, "author": self._name, "patches": [patch]}
        begin = time.monotonic()
        _, content = self.ask("POST", f"/images/{self._image}/edits", body)
        self.saves.append(time.monotonic() - begin)
        return int(json.loads(content)["revision"])


def _processor(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    sigterm_interrupts()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=20, help="how many [20]")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long they work [30]")
    parser.add_argument("--turn", type=float, default=2.0, help="seconds from one stroke to the next [2]")
    parser.add_argument("--trainings", type=int, default=4, help="how many of them train [4]")
    parser.add_argument("--out", type=Path, default=Path("out/bench/people.json"), metavar="FILE")
    options = parser.parse_args()
    image = encode_tiff(np.random.default_rng(0).integers(0, 4000, (SIDE, SIDE)).astype(np.uint16))
    with (
        tempfile.TemporaryDirectory() as folder,
        Orchestrator(Path(folder)) as orchestrator,
        Gateway(Path(folder)) as gateway,
    ):
        people = [
            Person(gateway.address, number, options.seconds, turn=options.turn, trains=number < options.trainings)
            for number in range(options.people)
        ]
        for person in people:
            person.prepare(image)
        for person in people:
            person.start()
        process, largest = psutil.Process(gateway.pid), 0.0
        servers = {"gateway": process, "orchestrator": psutil.Process(orchestrator.pid), "people": psutil.Process()}
        before = {name: _processor(server) for name, server in servers.items()}
        while any(person.is_alive() for person in people):
            largest = max(largest, process.memory_info().rss / 2**20)
            time.sleep(0.2)
        taken = {name: round(_processor(server) - before[name], 1) for name, server in servers.items()}
    errors = [person.error for person in people if person.error]
    saves = sorted(1000 * value for person in people for value in person.saves)
    views = sorted(1000 * value for person in people for value in person.views)
    report = {
        "people": options.people,
        "trainings": options.trainings,
        "strokes": len(saves),
        "save_ms_median": round(statistics.median(saves), 1),
        "save_ms_p95": round(saves[int(0.95 * len(saves))], 1),
        "tile_ms_median": round(statistics.median(views), 1),
        "tile_ms_p95": round(views[int(0.95 * len(views))], 1),
        "gateway_mib": round(largest, 1),
        "processor_seconds": taken,
        "errors": errors,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    print(f"aims: p95 of a save below {AIM_MS:.0f} ms, gateway below {AIM_MIB:.0f} MiB")
    if errors:
        raise SystemExit(f"{len(errors)} people could not go on; the first: {errors[0]}")


if __name__ == "__main__":
    main()
