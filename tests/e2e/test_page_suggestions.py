"""Which cells next: the page goes from one suggestion to the next, over images, by keyboard and by mouse."""

import numpy as np
from support.browser import ImageCanvas, cells_of, circle, picture
from support.scenes import scene

from cellsparse_common.imaging.images import encode_tiff

BACKGROUND = 1


def open_project(web, visit, images=3):
    """Open the first of some images of discs; return page, canvas, image ids and label images by id."""
    scenes = [scene(number, size=240, cells=16, radius=10) for number in range(images)]
    files = {f"{number}.tif": encode_tiff(pixels) for number, (pixels, _) in enumerate(scenes)}
    project, ids = web.rest.project(files)
    page = visit.open(f"{web.url}/#/p/{project}/i/{ids[0]}")
    return page, ImageCanvas(page), {image: label for image, (_, label) in zip(ids, scenes, strict=True)}


def place(page):
    """Return what the panel says about where one is: kind, number, how many, open."""
    words = page.locator("#suggestion-place").inner_text().replace(",", "").split()
    return words[0], int(words[1]), int(words[3]), int(words[4])


def image_of(page):
    return page.url.rpartition("/")[2]


def press_until_on(page, kind):
    """Press Tab until a suggestion of this kind is shown; return its image."""
    for _ in range(20):
        page.keyboard.press("Tab")
        page.locator("#suggestion-accept").wait_for()
        ImageCanvas(page)
        if place(page)[0] == kind:
            return image_of(page)
    raise AssertionError(f"no suggestion of kind {kind}")


def test_a_keyboard_is_enough_for_all_suggestions(web, visit):
    page, canvas, truth = open_project(web, visit)
    page.keyboard.press("s")
    page.locator("#suggestion-accept").wait_for()
    kind, _, total, still_open = place(page)
    assert (kind, total, still_open) == ("Cell", 10, 10)
    assert page.locator("#suggestion-reason").inner_text().endswith(".")
    canvas = ImageCanvas(page)
    picture(page, "suggestion.png")
    first = image_of(page)
    page.keyboard.press("a")
    canvas.said("Cell added.")
    canvas.saved()
    labels = web.rest.labels(first)
    (cell,) = cells_of(labels)
    assert (truth[first][labels == cell] > 0).mean() > 0.8
    assert (labels == BACKGROUND).any()
    assert not (truth[first][labels == BACKGROUND] > 0).any()
    # One undo takes back the cell and its background; redo brings both.
    page.keyboard.press("z")
    canvas.said("Undone.")
    assert not web.rest.labels(first).any()
    page.keyboard.press("Z")
    canvas.said("Redone.")
    assert (web.rest.labels(first) == labels).all()
    # Tab opens the next one, in its own image; N says that it is no cell.
    second = press_until_on(page, "Cell")
    assert place(page)[3] == 9
    before = web.rest.labels(second)
    page.keyboard.press("n")
    ImageCanvas(page).said("Not a cell: marked as background.")
    ImageCanvas(page).saved()
    after = web.rest.labels(second)
    assert ((after == BACKGROUND) & (before == 0)).sum() > 50
    assert cells_of(after) == cells_of(before)
    # The others are taken as they are, until none is left.
    for _ in range(8):
        page.keyboard.press("Tab")
        page.locator("#suggestion-accept").wait_for()
        ImageCanvas(page)
        page.keyboard.press("Enter")
        ImageCanvas(page).saved()
    page.get_by_role("button", name="Suggest more").wait_for()
    found = [web.rest.labels(image) for image in truth]
    assert sum(len(cells_of(labels)) for labels in found) == 7
    # Those who ask again get others: nothing that is labelled is suggested twice.
    page.get_by_role("button", name="Suggest more").click()
    page.locator("#suggestion-accept").wait_for()
    assert place(page)[3] >= 5


def test_redrawing_the_ring_and_the_end(web, visit):
    page, _, _ = open_project(web, visit)
    page.get_by_role("button", name="Suggest cells").click()
    page.locator("#suggestion-accept").wait_for()
    canvas = ImageCanvas(page)
    image = image_of(page)
    # A click on what is drawn accepts it, here without the background around it.
    page.get_by_label("Accept the background around it, too").uncheck()
    box = page.locator("#canvas").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    canvas.said("Cell added.")
    canvas.saved()
    labels = web.rest.labels(image)
    assert len(cells_of(labels)) == 1
    assert not (labels == BACKGROUND).any()
    # Redraw: the outline tool is in hand, and what is drawn becomes the cell.
    image = press_until_on(page, "Cell")
    canvas = ImageCanvas(page)
    before = len(cells_of(web.rest.labels(image)))
    page.keyboard.press("r")
    page.locator("#tool-outline[aria-pressed=true]").wait_for()
    left, top, scale = (float(word) for word in canvas.element.get_attribute("data-view").split())
    middle = left + box["width"] / 2 / scale, top + box["height"] / 2 / scale
    canvas.draw(circle(*middle, 9))
    canvas.said("Cell added.")
    canvas.saved()
    labels = web.rest.labels(image)
    assert len(cells_of(labels)) == before + 1
    assert labels[int(middle[1]), int(middle[0])] >= 2
    # Background is confirmed as such; End forgets the rest.
    page.keyboard.press("1")
    image = press_until_on(page, "Background")
    accept = page.get_by_role("button", name="Is background")
    accept.click()
    ImageCanvas(page).said("Background marked.")
    ImageCanvas(page).saved()
    assert (web.rest.labels(image) == BACKGROUND).any()
    page.get_by_role("button", name="End").click()
    page.get_by_role("button", name="Suggest cells").wait_for()
    assert np.isfinite(scale)


def test_every_control_has_a_name_and_the_sheet_shows_the_keys(web, visit):
    page, _, _ = open_project(web, visit, images=1)
    page.get_by_role("button", name="Suggest cells").click()
    page.locator("#suggestion-accept").wait_for()
    panel = page.get_by_role("region", name="Which cells next?")
    for name in ("Accept", "Redraw", "Not a cell", "Next suggestion", "End"):
        panel.get_by_role("button", name=name, exact=True).wait_for()
    panel.get_by_role("group", name="What is drawn is").wait_for()
    page.locator("#canvas").focus()
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog")
    assert "Next suggestion, if some are open" in sheet.inner_text()
    assert "Suggest which cells to mark next" in sheet.inner_text()
