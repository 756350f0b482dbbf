"""Cells that the model is sure of are accepted together, and models are measured on marks they have not seen."""

import time

import numpy as np
import pytest
from support.browser import ImageCanvas, picture
from support.limits import LONG_PATIENCE

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels

QUICK = {"steps": 60, "crop_size": 64, "batch_size": 2, "checkpoint_every_steps": 30}


def discs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and its dense labels."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :300]
    pixels, labels = random.integers(90, 110, (200, 300)), np.zeros((200, 300), np.int32)
    for number, (cx, cy) in enumerate(((x, y) for y in (40, 100, 160) for x in (45, 115, 185, 255)), start=1):
        inside = (x - cx) ** 2 + (y - cy) ** 2 < 15**2
        pixels[inside] += 100 + 25 * number
        labels[inside] = number
    return pixels.astype(np.uint16), labels


@pytest.fixture(scope="module")
def trained(web):
    """A project with a model that was trained on marks in the first of its two images; the second is labelled now."""
    (first, sparse), (second, dense) = discs(0), discs(1)
    project, (image, other) = web.rest.project({"first.tif": encode_tiff(first), "second.tif": encode_tiff(second)})
    sparse[(sparse > 2) | (np.arange(300) > 140)] = -1
    web.rest.call("POST", f"/images/{image}/labels?kind=instances", encode_labels(sparse))
    asked = {"backend": "unet", "preset": "fast", "settings": QUICK}
    run = web.rest.post(f"/projects/{project}/train", asked)["id"]
    end = time.monotonic() + LONG_PATIENCE
    while (state := web.rest.get(f"/runs/{run}")["state"]) != "RUN_STATE_SUCCEEDED":
        assert state != "RUN_STATE_FAILED"
        assert time.monotonic() < end
        time.sleep(0.3)
    web.rest.call("POST", f"/images/{other}/labels?kind=instances", encode_labels(dense))
    return project, image, run


def test_cells_from_a_confidence_up_are_accepted_by_keyboard(web, visit, trained):
    project, image, run = trained
    layer = web.rest.post(f"/images/{image}/layers", {"model_id": run})
    predicted = web.rest.get(f"/images/{image}/cells?layer={layer['id']}")["cells"]
    assert all(0 < cell["score"] <= 1 for cell in predicted)
    before = web.rest.get(f"/images/{image}/cells")["cells"]
    assert all("score" not in cell for cell in before)
    page = visit.open(f"{web.url}/#/p/{project}/i/{image}")
    canvas = ImageCanvas(page)
    slider, button = page.locator("#confidence"), page.locator("#accept-above")
    slider.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    few = int(button.inner_text().split()[1])
    page.keyboard.press("Home")
    page.wait_for_function(
        "few => parseInt(document.querySelector('#accept-above').textContent.split(' ')[1]) > few", arg=few
    )
    many = int(button.inner_text().split()[1])
    assert f"{many} cell" in slider.get_attribute("aria-valuetext")
    picture(page, "confidence.png")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    canvas.said("accepted")
    canvas.saved()
    after = web.rest.get(f"/images/{image}/cells")["cells"]
    assert {cell["label"] for cell in before} < {cell["label"] for cell in after}
    assert len(after) == len(before) + many
    page.locator("#accept-above", has_text="Accept 0 cells").wait_for()


def test_models_are_measured_on_what_they_have_not_seen(web, visit, trained):
    project, _, _ = trained
    datasets = len(web.rest.get("/datasets?page_size=100")["datasets"])
    page = visit.open(f"{web.url}/#/p/{project}/compare")
    page.get_by_role("button", name="Measure on marks").click()
    row = page.locator(".measured .score")
    row.wait_for()
    assert "All 12 cells of 1 image with every pixel labelled, which the model was not trained on." in row.inner_text()
    assert 0 <= float(row.locator("b").inner_text()) <= 1
    picture(page, "measured.png")
    assert len(web.rest.get("/datasets?page_size=100")["datasets"]) == datasets
