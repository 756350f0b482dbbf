"""Debian's Chromium, driven by Playwright: a browser that reaches loopback only, and what people do with the page."""

import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.limits import PATIENCE
from support.paths import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

PICTURES = ROOT / "out" / "e2e"
LOOPBACK = {"127.0.0.1", "localhost", "[::1]", "::1"}
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No name but loopback's is found, so that nothing can leave the machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
_SHOWN = "() => `focus: ${document.activeElement?.outerHTML.slice(0, 200)}\\n${document.body.innerText.slice(0, 3000)}`"
HEAR = """
  window.heard = [];
  let shown = '';
  new MutationObserver(() => {
    const before = shown;
    shown = document.querySelector('#said')?.textContent.trim() ?? '';
    if (shown && shown !== before) window.heard.push(shown);
  }).observe(document, { subtree: true, childList: true, characterData: true });
"""
"""Notes the page's sentences, which stay for seconds only: on a busy machine they may be gone before a test looks."""
_SAID = """text => {
  if (document.querySelector('#said')?.textContent.includes(text)) return true;
  const at = window.heard.findIndex((sentence) => sentence.includes(text));
  if (at >= 0) window.heard.splice(0, at + 1);
  return at >= 0;
}"""
Point = tuple[float, float]


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Yield a browser; skip the test where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("Chromium is not installed; `make browser` installs it as root on Debian")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def said(page: "Page", text: str) -> None:
    """Wait until the page says, or has said, a sentence with a text; what it said before that is forgotten."""
    page.wait_for_function(_SAID, arg=text)


class Visit:
    """A browser's window with a storage of its own. It notes requests beyond loopback and errors of scripts.

    Attributes:
        context: Its storage, which several tabs share.
        beyond: Addresses that were asked for and are not on loopback.
        errors: Errors that scripts did not handle, and violations of the content security policy.
    """

    def __init__(self, browser: "Browser") -> None:
        self.context: BrowserContext = browser.new_context(viewport={"width": 1280, "height": 720})
        self.context.set_default_timeout(1000 * PATIENCE)
        self.beyond: list[str] = []
        self.errors: list[str] = []
        self.context.on("request", lambda request: self._ask(request.url))
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.context.on("console", self._hear)

    def _ask(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in LOOPBACK:
            self.beyond.append(url)

    def _hear(self, message: Any) -> None:
        if message.type == "error" and "Content Security Policy" in message.text:
            self.errors.append(message.text)

    def tell(self) -> None:
        """Print what each tab shows, which pytest passes on if the test has failed."""
        for page in self.context.pages:
            print(page.url, page.evaluate(_SHOWN), sep="\n")

    def remember(self, key: str, value: Any) -> None:
        """Let the browser know what a person chose on an earlier visit."""
        text = json.dumps(json.dumps(value))
        self.context.add_init_script(
            f"if (location.origin !== 'null') localStorage.setItem({json.dumps(key)}, {text});"
        )

    def open(self, url: str) -> "Page":
        """Open a tab.

        Whoever waits for a file chooser later finds it: a busy page would open its own if it were told only then.
        """
        page = self.context.new_page()
        page.on("filechooser", lambda _: None)
        page.add_init_script(HEAR)
        page.goto(url)
        return page


class ImageCanvas:
    """The canvas of an open image, in the image's own coordinates."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.element: Locator = page.locator("#canvas[data-view]")
        self.element.wait_for()

    def at(self, x: float, y: float) -> Point:
        """Return where a point of the image is in the window."""
        left, top, scale = (float(word) for word in str(self.element.get_attribute("data-view")).split())
        box = self.element.bounding_box()
        assert box is not None
        return box["x"] + (x - left) * scale, box["y"] + (y - top) * scale

    def point(self, x: float, y: float) -> None:
        """Move the mouse to a point."""
        self.page.mouse.move(*self.at(x, y))

    def click(self, x: float, y: float) -> None:
        """Click a point."""
        self.page.mouse.click(*self.at(x, y))

    def press(self, points: Sequence[Point]) -> None:
        """Begin a stroke and draw it, with the button still down."""
        self.point(*points[0])
        self.page.mouse.down()
        for x, y in points[1:]:
            self.page.mouse.move(*self.at(x, y), steps=4)

    def draw(self, points: Sequence[Point]) -> None:
        """Draw a whole stroke."""
        self.press(points)
        self.page.mouse.up()

    def saved(self) -> None:
        """Wait until the server has all strokes."""
        self.page.locator('#canvas[data-unsaved="0"]').wait_for()

    def cells(self, count: int) -> None:
        """Wait until the page counts so many cells."""
        self.page.wait_for_function(
            "count => parseInt((document.querySelector('#cells')?.textContent || '').replaceAll(',', '')) === count",
            arg=count,
        )

    def said(self, text: str) -> None:
        """Wait for a sentence."""
        said(self.page, text)

    def picture(self, *names: str | Path) -> None:
        """Take a picture of the window, without a moment's messages, under each of the names."""
        picture(self.page, *names)


def picture(page: "Page", *names: str | Path) -> None:
    """Take a picture of a window under each of the names; a name without a folder lies in `out/e2e`."""
    page.wait_for_timeout(400)  # what fades in is there, and tiles are drawn
    for name in names:
        path = PICTURES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=path)


def circle(x: float, y: float, radius: float, corners: int = 16) -> list[Point]:
    """Return a way around a point."""
    angles = np.linspace(0, 2 * np.pi, corners)
    return [(x + radius * float(np.cos(a)), y + radius * float(np.sin(a))) for a in angles]


class Rest:
    """What tests ask the gateway beside the page.

    Args:
        api: Base address, with /api/v1.
    """

    def __init__(self, api: str) -> None:
        self.api = api

    def call(self, method: str, path: str, body: bytes | None = None, kind: str = "application/octet-stream") -> Any:
        """Return an answer's headers and body."""
        headers = {"Content-Type": kind} if body is not None else {}
        request = urllib.request.Request(self.api + path, method=method, data=body, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310
            return answer.headers, answer.read()

    def get(self, path: str) -> Any:
        """Return a document."""
        return json.loads(self.call("GET", path)[1])

    def post(self, path: str, document: Any) -> Any:
        """Send a document and return the answer's."""
        return json.loads(self.call("POST", path, json.dumps(document).encode(), "application/json")[1])

    def project(self, images: dict[str, bytes], name: str = "Test") -> tuple[str, list[str]]:
        """Make a project with images and return its id and theirs."""
        project = self.post("/projects", {"name": name})["id"]
        made = []
        for file, data in images.items():
            path = f"/projects/{project}/images?name={urllib.parse.quote(file)}"
            made.append(json.loads(self.call("POST", path, data)[1])["id"])
        return project, made

    def labels(self, image: str, layer: str = "") -> np.ndarray:
        """Return all label numbers of an image of one plane: uint32, YX."""
        shape = self.get(f"/images/{image}")
        out = np.zeros((shape["height"], shape["width"]), np.uint32)
        for y in range(0, shape["height"], 512):
            for x in range(0, shape["width"], 512):
                path = f"/images/{image}/labels/tiles/0/{x // 512}/{y // 512}?plane=0&layer={layer}"
                headers, data = self.call("GET", path)
                if data:
                    tile = np.frombuffer(data, "<u4")
                    out[y : y + int(headers["X-Tile-Height"]), x : x + int(headers["X-Tile-Width"])] = tile.reshape(
                        int(headers["X-Tile-Height"]), int(headers["X-Tile-Width"])
                    )
        return out


def cells_of(labels: np.ndarray) -> list[int]:
    """Return the label numbers of all cells."""
    return [int(number) for number in np.unique(labels) if number >= 2]


def walk(page: "Page", keys: Iterable[str]) -> None:
    """Press keys one after the other."""
    for key in keys:
        page.keyboard.press(key)
