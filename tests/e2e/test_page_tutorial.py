"""The tutorial, by mouse and by keyboard alone: from the start page to a corrected model.

With CELLSPARSE_TUTORIAL_PICTURES=1 the pictures of docs/page.md are taken anew.
"""

import os

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from support.browser import PICTURES, ImageCanvas, cells_of, picture, said
from support.nuclei import clear_nuclei, nuclei_labels, open_ground
from support.paths import ROOT

TUTORIAL = ROOT / "docs" / "tutorial"
PICTURES_WANTED = bool(os.environ.get("CELLSPARSE_TUTORIAL_PICTURES"))
STEPS = 150 if PICTURES_WANTED else 60
SETTINGS = f"steps={STEPS} crop_size=96 checkpoint_every_steps={STEPS // 4}"
QUICK_TRAINING = {"backend": "unet", "preset": "fast", "expert": SETTINGS}
"""What a person who has trained before may have chosen last: less than a minute on a CPU."""
MOST_CLICKS = 10
COUNT_CLICKS = "window.clicks = 0; addEventListener('pointerdown', () => { window.clicks += 1; }, true);"


@pytest.fixture
def quick(visit):
    """A window in which the last training was a quick one."""
    visit.remember("cellsparse.training", QUICK_TRAINING)
    visit.context.add_init_script(COUNT_CLICKS)
    return visit


def show(page, name: str) -> None:
    """Take a picture for the tutorial, and refresh the one in the documentation if that is asked for."""
    picture(page, name)
    if PICTURES_WANTED:
        TUTORIAL.mkdir(exist_ok=True)
        taken = Image.open(PICTURES / name).convert("RGB").resize((960, 540), Image.Resampling.LANCZOS)
        taken.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            TUTORIAL / name, optimize=True
        )


def test_ten_clicks_by_mouse_to_the_first_outlines_then_correct_and_compare(web, quick):
    truth = nuclei_labels()
    page = quick.open(web.url)
    page.get_by_role("button", name="Try the sample").wait_for()
    show(page, "1-start.png")
    page.get_by_role("button", name="Try the sample").click()
    canvas = ImageCanvas(page)
    for index, (x, y) in enumerate(clear_nuclei(truth, 5)):
        canvas.point(x, y)
        if index == 4:
            page.wait_for_timeout(1500)
            show(page, "2-click.png")
        canvas.click(x, y)
        canvas.cells(index + 1)
    page.get_by_role("button", name="Background", exact=False).click()
    x, y = open_ground(truth)
    canvas.draw([(x, y), (x + 25, y)])
    canvas.saved()
    show(page, "3-background.png")
    page.locator("#train").click()
    page.locator("#run-state", has_text="Training").wait_for()
    page.wait_for_function(
        "() => document.querySelector('.progress progress')?.value >= 0.4"
        " || document.querySelector('#run-state')?.textContent === 'Done'"
    )
    show(page, "4-training.png")
    page.locator("#run-state", has_text="Done").wait_for()
    page.locator("#found").wait_for()
    assert page.evaluate("window.clicks") <= MOST_CLICKS
    page.locator("#predicting").wait_for(state="detached")
    show(page, "5-outlines.png")
    image = page.url.rsplit("/", 1)[1]
    marked = web.rest.labels(image)
    layer = web.rest.get(f"/images/{image}/layers")["layers"][0]
    assert layer["cells"] > 0

    page.get_by_role("button", name="Click", exact=False).first.click()
    predicted = web.rest.labels(image, layer["id"])
    free = [(x, y) for x, y in clear_nuclei(truth, 40) if predicted[int(y), int(x)] >= 2 and not marked[int(y), int(x)]]
    assert free, "the model found nothing beside what was marked"
    for x, y in free[:3]:
        canvas.click(x, y)
        canvas.saved()
    canvas.cells(5 + min(3, len(free)))
    corrected = web.rest.labels(image)
    assert np.array_equal(corrected[marked > 0], marked[marked > 0])
    page.locator("#train", has_text="Train on").click()
    page.locator("#run-state", has_text="Done").wait_for(state="detached")
    page.locator("#run-state", has_text="Done").wait_for()
    page.locator("#predicting").wait_for(state="detached")
    show(page, "6-again.png")
    project = page.url.split("/p/")[1].split("/")[0]
    newest, first = web.rest.get(f"/projects/{project}/runs")["runs"]
    assert newest["settings"]["initial_model"] == first["id"]
    before = web.rest.labels(image)
    page.locator("#accept-all").click()
    canvas.said("accepted")
    canvas.saved()
    accepted = web.rest.labels(image)
    assert np.array_equal(accepted[before > 0], before[before > 0])
    picture(page, "accepted.png")

    for tab in ("Compare", "Models", "Trainings", "Images"):
        page.get_by_role("link", name=tab).click()
        page.wait_for_load_state("networkidle")
        page.mouse.move(640, 60)
        if tab == "Compare":
            show(page, "7-compare.png")
            page.get_by_role("button", name="Difference").click()
            picture(page, "view-difference.png")
        else:
            picture(page, f"view-{tab.lower()}.png")


def test_everything_by_keyboard_alone(web, quick):
    truth = nuclei_labels()
    page = quick.open(web.url)
    sample = page.get_by_role("button", name="Try the sample")
    sample.wait_for()
    for _ in range(3):  # the name of the program and "Models for clicks" are links before it
        page.keyboard.press("Tab")
    expect(sample).to_be_focused()
    page.keyboard.press("Enter")
    canvas = ImageCanvas(page)
    page.wait_for_function("() => document.activeElement?.id === 'canvas'")
    image = page.url.rsplit("/", 1)[1]
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keys").wait_for()
    picture(page, "keys.png")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    cursor = [float(np.floor(side / 2)) for side in reversed(truth.shape)]

    def go(x: float, y: float) -> None:
        """Move the cursor by whole pixels."""
        for axis, (less, more) in enumerate((("ArrowLeft", "ArrowRight"), ("ArrowUp", "ArrowDown"))):
            steps = round((x, y)[axis] - cursor[axis])
            for _ in range(abs(steps)):
                page.keyboard.press(f"Shift+{more if steps > 0 else less}")
            cursor[axis] += steps

    middle = [side / 2 for side in reversed(truth.shape)]
    nearest = sorted(clear_nuclei(truth, 20), key=lambda at: abs(at[0] - middle[0]) + abs(at[1] - middle[1]))
    for index, (x, y) in enumerate(nearest[:2]):
        go(x, y)
        page.keyboard.press("Enter")
        canvas.cells(index + 1)
    x, y = nearest[2]
    page.keyboard.press("2")  # the third by its outline
    go(x - 6, y - 6)
    page.keyboard.press("Enter")
    for corner in ((x + 6, y - 6), (x + 6, y + 6), (x - 6, y + 6)):
        go(*corner)
    page.keyboard.press("Enter")
    canvas.cells(3)
    page.keyboard.press("4")
    page.keyboard.press("[")
    x, y = open_ground(truth, 40, 20)
    go(x, y)
    page.keyboard.press("Enter")
    go(x + 15, y)
    page.keyboard.press("Enter")
    canvas.saved()
    labels = web.rest.labels(image)
    assert len(cells_of(labels)) == 3
    assert (labels == 1).sum() > 50
    page.keyboard.press("z")
    said(page, "Undone")
    assert not (web.rest.labels(image) == 1).any()
    page.keyboard.press("Shift+Z")
    said(page, "Redone")
    page.keyboard.press("t")
    page.locator("#run-state", has_text="Done").wait_for()
    page.locator("#found").wait_for()
    page.locator("#predicting").wait_for(state="detached")
    page.keyboard.press("1")
    page.keyboard.press("Tab")
    said(page, "predicted cells are left")
    page.keyboard.press("a")
    canvas.cells(4)
    page.keyboard.press("Tab")
    page.keyboard.press("x")
    said(page, "Not a cell")
    canvas.saved()
    assert page.evaluate("window.clicks") == 0
