"""QuPath as tests play it: its HTTP client and PNG writer in Java, and its script in a QuPath made of doubles."""

import base64
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.limits import LONG_PATIENCE, PATIENCE
from support.paths import ROOT

from cellsparse_common.imaging.images import decode_image

SOURCES = Path(__file__).parent / "java"
SCRIPT = ROOT / "services" / "gateway" / "qupath" / "Cellsparse.groovy"
JARS = ROOT / ".tools" / "groovy"
NO_JDK = "there is no javac on this machine; `make jdk` installs one"
NO_GROOVY = "there is no Groovy in .tools/groovy; `make groovy` puts it there"


@dataclass(frozen=True)
class Answer:
    """What came back from a request."""

    status: int
    kind: str
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class QuPath:
    """The Java client, compiled.

    Args:
        folder: Where its classes and files go.
        size: Side of the images it makes, pixels.
    """

    def __init__(self, folder: Path, size: int = 64) -> None:
        self.size = size
        self._folder = folder
        compile_java(folder / "classes", [SOURCES / "QuPathClient.java"])
        self.texts = folder / "texts"
        self.texts.mkdir()
        self._run("fixtures", self.texts, size)

    def text(self, name: str) -> str:
        """The base64 text of an image."""
        return (self.texts / name).read_text()

    def array(self, name: str) -> np.ndarray:
        """The pixels of an image."""
        data = base64.b64decode(self.text(name))
        return decode_image(data, max_pixels=2**20, labels=name == "labels").array

    def train(self, url: str, image: str, labels: str = "labels", steps: int = 200) -> Answer:
        """Press Training."""
        return self._segment(url, image, labels, True, steps)

    def infer(self, url: str, image: str) -> Answer:
        """Press Inference, which sends the labels as well."""
        return self._segment(url, image, "labels", False, 200)

    def reset(self, url: str) -> Answer:
        """Press Reset."""
        return self.post(f"{url}reset/", {"modelname": "default"})

    def post(self, url: str, body: dict) -> Answer:
        file = self._folder / "body.json"
        file.write_text(json.dumps(body))
        return self._answer("post", url, file)

    def get(self, url: str) -> Answer:
        return self._answer("get", url)

    def paint(self, features: list[dict], shape: tuple[int, int]) -> np.ndarray:
        """Fill the outlines with Java's own geometry, as QuPath does: n is the n-th feature."""
        lines = []
        for number, feature in enumerate(features, 1):
            geometry = feature["geometry"]
            parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
            rings = [";".join(f"{x},{y}" for x, y in ring) for part in parts for ring in part]
            lines.append(" ".join([str(number), *rings]))
        shapes, painted = self._folder / "shapes.txt", self._folder / "painted"
        shapes.write_text("\n".join(lines))
        self._run("paint", shapes, shape[1], shape[0], painted)
        return np.fromfile(painted, "<i4").reshape(shape)

    def _segment(self, url: str, image: str, labels: str, train: bool, steps: int) -> Answer:
        return self._answer(
            "segment", url, self.texts / image, self.texts / labels, "true" if train else "false", steps
        )

    def _answer(self, *arguments: object) -> Answer:
        file = self._folder / "answer"
        status, _, kind = self._run(*arguments, file).strip().partition(" ")
        return Answer(int(status), kind, file.read_text())

    def _run(self, *arguments: object) -> str:
        return java(["-cp", self._folder / "classes", "QuPathClient", *arguments])


def compile_java(classes: Path, sources: list[Path], jars: list[Path] | None = None) -> None:
    """Compile into a folder; the test is skipped where there is no compiler."""
    if shutil.which("javac") is None:
        pytest.skip(NO_JDK)
    classes.mkdir()
    path = ":".join(map(str, jars or [])) or "."
    subprocess.run(["javac", "-d", classes, "-cp", path, *sources], check=True, timeout=PATIENCE)


def java(arguments: list[object]) -> str:
    """Run Java and return what it prints."""
    command = ["java", "-Djava.awt.headless=true", "-XX:TieredStopAtLevel=1", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def groovy_jars() -> dict[str, list[Path]]:
    """Jars by Groovy's major version: QuPath 0.5 and 0.6 have Groovy 4, QuPath 0.7 has Groovy 5."""
    gson = sorted(JARS.glob("gson-*.jar"))
    return {jar.name.split("-")[1].split(".")[0]: [jar, *gson] for jar in sorted(JARS.glob("groovy-*.jar")) if gson}
