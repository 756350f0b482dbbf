"""While a training runs, the page shows what its newest checkpoint sees."""

import numpy as np
from support.browser import ImageCanvas, circle

from cellsparse_common.imaging.images import encode_tiff

LONG = {"backend": "unet", "preset": "fast", "expert": "steps=5000 crop_size=64 batch_size=2 checkpoint_every_steps=20"}


def test_outlines_of_a_checkpoint_appear_while_it_trains(web, visit):
    visit.remember("cellsparse.training", LONG)
    random = np.random.default_rng(0)
    y, x = np.mgrid[:200, :300]
    pixels = random.integers(90, 110, (200, 300))
    for cx, cy in ((50, 60), (150, 60), (250, 60), (150, 140)):
        pixels[(x - cx) ** 2 + (y - cy) ** 2 < 225] += 300
    project, (image,) = web.rest.project({"discs.tif": encode_tiff(pixels.astype(np.uint16))})
    page = visit.open(f"{web.url}/#/p/{project}/i/{image}")
    canvas = ImageCanvas(page)
    page.keyboard.press("2")
    canvas.draw(circle(50, 60, 15))
    canvas.draw(circle(150, 60, 15))
    page.keyboard.press("4")
    canvas.draw([(90, 100), (210, 100)])
    canvas.saved()
    page.keyboard.press("t")
    page.locator("#found").wait_for()
    assert page.locator("#run-state").inner_text() == "Training"
    (layer,) = web.rest.get(f"/images/{image}/layers")["layers"]
    assert layer["run_id"]
    assert layer["step"] > 0
    canvas.picture("peek.png")
    page.get_by_role("button", name="Stop").click()
    page.locator("#run-state", has_text="Stopped").wait_for()
