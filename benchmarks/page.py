"""Frame times of the page: a large image with many cells is panned, zoomed, painted on and asked about.

    PYTHONPATH=tests python benchmarks/page.py [--quick] [--out out/bench/page.json]

A real orchestrator and gateway serve the image; Debian's Chromium shows it without a GPU, in a window of 1280 x 720.
Writes medians and 95th percentiles in milliseconds.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from support.browser import ImageCanvas, Rest, Visit, chromium
from support.crowds import crowd
from support.gateway import Gateway
from support.interrupts import sigterm_interrupts
from support.orchestrator import Orchestrator

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels

_FRAMES = """() => {
  window.frames_ = [];
  let last = performance.now();
  const note = (now) => { window.frames_.push(now - last); last = now; requestAnimationFrame(note); };
  requestAnimationFrame(note);
}"""
_CLEAR = "() => { window.frames_ = []; }"
_READ = "() => window.frames_"
_EVENTS = """() => {
  window.events_ = [];
  new PerformanceObserver((list) => list.getEntries().forEach((entry) => window.events_.push(entry.duration)))
    .observe({ type: 'event', durationThreshold: 16, buffered: false });
}"""


def summary(values: list[float]) -> dict[str, float]:
    """Return median, 95th percentile, largest value and number."""
    if not values:
        return {"count": 0}
    middle, late = np.percentile(values, (50, 95))
    return {
        "median": round(float(middle), 1),
        "p95": round(float(late), 1),
        "max": round(max(values), 1),
        "count": len(values),
    }


def measure(page: Any, act: Any) -> dict[str, float]:
    """Return the frame times while something is done."""
    page.evaluate(_CLEAR)
    act()
    return summary(page.evaluate(_READ))


def pan(page: Any) -> None:
    """Drag the image around in a square with the right button."""
    page.mouse.move(700, 400)
    page.mouse.down(button="right")
    for x, y in ((500, 400), (500, 300), (700, 300), (700, 400)) * 2:
        page.mouse.move(x, y, steps=20)
    page.mouse.up(button="right")


def zoom(page: Any) -> None:
    """Zoom in and out again."""
    page.mouse.move(600, 350)
    for turn in (-120,) * 12 + (120,) * 12:
        page.mouse.wheel(0, turn)
        page.wait_for_timeout(16)


def main() -> None:
    """Measure and write."""
    sigterm_interrupts()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3,000 x 3,000 pixels")
    parser.add_argument("--out", type=Path, default=Path("out/bench/page.json"))
    arguments = parser.parse_args()
    side, spacing = (3000, 70) if arguments.quick else (10_000, 70)
    pixels, labels = crowd(side, side, spacing)
    result: dict[str, Any] = {"side": side, "cells": int(labels.max()), "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with Orchestrator(home) as _, Gateway(home) as gateway, chromium() as browser:
            rest = Rest(gateway.api)
            start = time.monotonic()
            project, (image,) = rest.project({"crowd.tif": encode_tiff(pixels)})
            result["upload_s"] = round(time.monotonic() - start, 1)
            start = time.monotonic()
            rest.call("POST", f"/images/{image}/labels?kind=instances&author=bench", encode_labels(labels))
            result["import_labels_s"] = round(time.monotonic() - start, 1)
            visit = Visit(browser)
            result["chromium"] = browser.version
            start = time.monotonic()
            page = visit.open(f"{gateway.url}/#/p/{project}/i/{image}")
            canvas = ImageCanvas(page)
            canvas.cells(int(labels.max()))
            page.wait_for_load_state("networkidle")
            result["open_s"] = round(time.monotonic() - start, 1)
            page.evaluate(_FRAMES)
            page.evaluate(_EVENTS)
            result["idle_ms"] = measure(page, lambda: page.wait_for_timeout(2000))
            result["whole_pan_ms"] = measure(page, lambda: pan(page))
            result["zoom_ms"] = measure(page, lambda: zoom(page))
            for _ in range(10):
                page.mouse.wheel(0, -120)
            page.wait_for_load_state("networkidle")
            page.wait_for_timeout(1500)
            result["near_pan_ms"] = measure(page, lambda: pan(page))
            page.keyboard.press("4")
            left, top, scale = (float(word) for word in str(canvas.element.get_attribute("data-view")).split())
            x, y = left + 300 / scale, top + 300 / scale
            stroke = [(x, y), (x + 100 / scale, y), (x + 200 / scale, y + 50 / scale)]
            result["stroke_ms"] = measure(page, lambda: canvas.draw(stroke))
            start = time.monotonic()
            canvas.draw([(x, y + 40 / scale), (x + 100 / scale, y + 40 / scale)])
            canvas.saved()
            result["stroke_saved_ms"] = round(1000 * (time.monotonic() - start), 1)
            result["interactions_ms"] = summary(page.evaluate("() => window.events_"))
            canvas.picture("bench-page.png")
            visit.context.close()
    result["machine"] = platform.machine()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
