"""The page while its server is away: nothing is lost, and it goes on by itself."""

import numpy as np
from support.browser import ImageCanvas, Rest, cells_of, circle
from support.gateway import Gateway
from support.orchestrator import Orchestrator

from cellsparse_common.imaging.images import encode_tiff

QUICK = {"backend": "unet", "preset": "fast", "expert": "steps=150 crop_size=64 batch_size=2"}


def test_strokes_and_a_training_outlive_a_restart_of_the_server(tmp_path, visit):
    visit.remember("cellsparse.training", QUICK)
    random = np.random.default_rng(0)
    y, x = np.mgrid[:200, :300]
    discs = [(50, 60), (150, 60), (250, 60), (50, 140), (150, 140), (250, 140)]
    pixels = random.integers(90, 110, (200, 300))
    for cx, cy in discs:
        pixels[(x - cx) ** 2 + (y - cy) ** 2 < 225] += 300
    home = tmp_path / "home"
    with Orchestrator(home, CELLSPARSE_TRAINER_MODULES="unet=cellsparse_unet", OMP_NUM_THREADS="1"):
        with Gateway(home) as gateway:
            port = gateway.address.rpartition(":")[2]
            rest = Rest(gateway.api)
            project, (image,) = rest.project({"discs.tif": encode_tiff(pixels.astype(np.uint16))})
            page = visit.open(f"{gateway.url}/#/p/{project}/i/{image}")
            canvas = ImageCanvas(page)
            page.keyboard.press("2")
            for cx, cy in discs[:2]:
                canvas.draw(circle(cx, cy, 15))
            page.keyboard.press("4")
            canvas.draw([(90, 100), (210, 100)])
            canvas.saved()
            page.keyboard.press("t")
            page.locator("#run-state", has_text="Training").wait_for()
        page.keyboard.press("2")
        canvas.draw(circle(*discs[2], 15))
        page.locator("#saved", has_text="Not saved yet").wait_for()
        with Gateway(home, CELLSPARSE_GATEWAY_PORT=port):
            canvas.saved()
            canvas.cells(3)
            assert len(cells_of(rest.labels(image))) == 3
            page.locator("#run-state", has_text="Done").wait_for()
            page.locator("#found").wait_for()
            canvas.picture("after-restart.png")
