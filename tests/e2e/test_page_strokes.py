"""Strokes on the page: each is saved, none is lost, none changes another cell."""

import numpy as np
import pytest
from support.browser import ImageCanvas, cells_of, circle

from cellsparse_common.imaging.images import encode_tiff


@pytest.fixture
def image(web):
    """A new image of 400 x 300 pixels, and the address of its canvas."""
    random = np.random.default_rng(0)
    pixels = random.integers(90, 110, (300, 400)).astype(np.uint16)
    project, (made,) = web.rest.project({"field.tif": encode_tiff(pixels)})
    return made, f"{web.url}/#/p/{project}/i/{made}"


def test_an_outline_becomes_a_cell_and_background_stays_beside_it(web, visit, image):
    made, address = image
    page = visit.open(address)
    canvas = ImageCanvas(page)
    page.keyboard.press("2")
    canvas.draw(circle(100, 100, 20))
    page.keyboard.press("4")
    canvas.draw([(100, 100), (200, 100)])
    canvas.saved()
    canvas.cells(1)
    labels = web.rest.labels(made)
    (cell,) = cells_of(labels)
    assert labels[100, 100] == cell
    assert labels[100, 190] == 1
    assert abs((labels == cell).sum() - np.pi * 400) < 80


def test_a_new_cell_never_overwrites_another(web, visit, image):
    made, address = image
    page = visit.open(address)
    canvas = ImageCanvas(page)
    page.keyboard.press("2")
    canvas.draw(circle(100, 100, 20))
    canvas.saved()
    before = web.rest.labels(made)
    canvas.draw(circle(120, 100, 20))
    canvas.saved()
    canvas.cells(2)
    after = web.rest.labels(made)
    assert np.array_equal(after[before > 0], before[before > 0])
    assert len(cells_of(after)) == 2


def test_the_brush_extends_a_cell_and_alt_erases(web, visit, image):
    made, address = image
    page = visit.open(address)
    canvas = ImageCanvas(page)
    page.keyboard.press("2")
    canvas.draw(circle(100, 100, 15))
    page.keyboard.press("3")
    canvas.draw([(100, 100), (160, 100)])
    canvas.saved()
    labels = web.rest.labels(made)
    (cell,) = cells_of(labels)
    assert labels[100, 158] == cell
    page.keyboard.down("Alt")
    canvas.draw([(150, 100), (160, 100)])
    page.keyboard.up("Alt")
    canvas.saved()
    labels = web.rest.labels(made)
    assert labels[100, 155] == 0
    assert labels[100, 100] == cell


def test_undo_and_redo(web, visit, image):
    made, address = image
    page = visit.open(address)
    canvas = ImageCanvas(page)
    page.keyboard.press("2")
    canvas.draw(circle(100, 100, 20))
    canvas.draw(circle(200, 100, 20))
    canvas.cells(2)
    drawn = web.rest.labels(made)
    page.keyboard.press("z")
    canvas.cells(1)
    assert len(cells_of(web.rest.labels(made))) == 1
    page.keyboard.press("Shift+Z")
    canvas.cells(2)
    assert np.array_equal(web.rest.labels(made), drawn)


def test_delete_merge_split_and_lasso(web, visit, image):
    made, address = image
    page = visit.open(address)
    canvas = ImageCanvas(page)
    page.keyboard.press("2")
    for x in (60, 100.5, 200, 300):
        canvas.draw(circle(x, 100, 20))
    canvas.cells(4)
    page.keyboard.press("6")
    canvas.draw([(50, 100), (110, 100)])
    canvas.cells(3)
    page.keyboard.press("7")
    canvas.draw([(200, 70), (200, 130)])
    canvas.cells(4)
    labels = web.rest.labels(made)
    assert labels[100, 60] == labels[100, 100]
    assert labels[100, 190] != labels[100, 210]
    page.keyboard.press("5")
    canvas.draw(circle(200, 100, 40))
    canvas.cells(2)
    canvas.point(300, 100)
    page.keyboard.press("x")
    canvas.cells(1)
    assert web.rest.labels(made)[100, 300] == 0


def test_two_tabs_lose_no_stroke(web, visit, image):
    made, address = image
    tabs = [visit.open(address), visit.open(address)]
    canvases = [ImageCanvas(tab) for tab in tabs]
    for tab in tabs:
        tab.keyboard.press("2")
    for turn in range(4):
        for index, canvas in enumerate(canvases):
            canvas.page.bring_to_front()
            canvas.draw(circle(40 + 80 * turn, 60 + 120 * index, 15))
    for canvas in canvases:
        canvas.page.bring_to_front()
        canvas.saved()
        canvas.cells(8)
    assert len(cells_of(web.rest.labels(made))) == 8


def test_two_tabs_that_draw_on_the_same_place_keep_both_cells(web, visit, image):
    made, address = image
    first, second = (ImageCanvas(visit.open(address)) for _ in range(2))
    for canvas, x in ((first, 100), (second, 115)):
        canvas.page.bring_to_front()
        canvas.page.keyboard.press("2")
        canvas.draw(circle(x, 100, 20))
        canvas.saved()
    labels = web.rest.labels(made)
    assert len(cells_of(labels)) == 2
    assert labels[100, 90] != labels[100, 130]
    assert min((labels == cell).sum() for cell in cells_of(labels)) > 300


def test_a_reload_in_the_middle_of_a_stroke_keeps_what_was_drawn(web, visit, image):
    made, address = image
    page = visit.open(address)
    canvas = ImageCanvas(page)
    page.keyboard.press("4")
    canvas.press([(50, 50), (100, 50), (150, 60)])
    page.reload()
    page.mouse.up()
    canvas = ImageCanvas(page)
    canvas.saved()
    page.wait_for_function("() => !Object.keys(sessionStorage).some(key => key.startsWith('cellsparse.strokes'))")
    labels = web.rest.labels(made)
    assert labels[50, 60] == 1
    assert labels[60, 149] == 1
