"""What a training is asked for in the page: with the methods that there are, from any model."""

import time

import numpy as np
from support.browser import ImageCanvas
from support.limits import LONG_PATIENCE

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels

SETTINGS = {"steps": 2, "crop_size": 32, "batch_size": 1}


def marked_project(web, name):
    """Make a project with one image and one marked cell; return its id and the image's."""
    pixels = np.random.default_rng(0).integers(0, 50, (64, 64)).astype(np.uint16)
    pixels[20:36, 20:36] += 200
    labels = np.full((64, 64), -1, np.int32)
    labels[20:36, 20:36], labels[40:60, 40:60] = 1, 0
    project, (image,) = web.rest.project({"a.tif": encode_tiff(pixels)}, name)
    web.rest.call("POST", f"/images/{image}/labels?kind=instances", encode_labels(labels))
    return project, image


def runs(web, project):
    """Return a project's runs, newest first, when all have ended."""
    end = time.monotonic() + LONG_PATIENCE
    while True:
        found = web.rest.get(f"/projects/{project}/runs")["runs"]
        if all(run["state"] == "RUN_STATE_SUCCEEDED" for run in found):
            return found
        assert time.monotonic() < end, [run["state"] for run in found]
        time.sleep(0.3)


def test_a_training_starts_from_any_model_of_its_method(web, visit):
    first, _ = marked_project(web, "First")
    web.rest.post(f"/projects/{first}/train", {"backend": "unet", "preset": "fast", "settings": SETTINGS})
    (model,) = runs(web, first)
    second, image = marked_project(web, "Second")
    visit.remember("cellsparse.training", {"backend": "stardist", "expert": "steps=2 crop_size=32 batch_size=1"})
    page = visit.open(f"{web.url}/#/p/{second}/i/{image}")
    ImageCanvas(page)
    page.get_by_text("More", exact=True).click()
    # The installation has one method; that of the last visit is not there.
    assert page.locator("#method option").all_inner_texts() == ["U-Net"]
    start = page.locator("#start-from")
    start.wait_for()
    assert start.locator("option").all_inner_texts() == ["Afresh, without a model", model["name"]]
    start.select_option(model["id"])
    train = page.locator("#train", has_text="Train on")
    train.click()
    page.locator("#run-state", has_text="Done").wait_for()
    (trained,) = runs(web, second)
    assert trained["settings"]["initial_model"] == model["id"]
    # From now on the project's own model comes first.
    page.locator("#start-from option", has_text="The last model").wait_for(state="attached")
    assert start.input_value() == ""
    start.select_option("fresh")
    page.locator("#train", has_text="Train").click()
    page.locator("#run-state", has_text="Done").wait_for(state="detached")
    page.locator("#run-state", has_text="Done").wait_for()
    assert [run["settings"].get("initial_model", "") for run in runs(web, second)] == ["", model["id"]]
