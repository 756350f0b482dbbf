"""A larger image with many cells: it opens, moves and takes strokes. `make bench-page` measures how fast."""

import numpy as np
from support.browser import ImageCanvas, circle, picture
from support.crowds import crowd

from cellsparse_common.imaging.images import encode_tiff
from cellsparse_common.imaging.labels import encode_labels


def test_an_image_of_several_levels_with_a_thousand_cells(web, visit):
    pixels, labels = crowd(2600, 2600, spacing=80)
    project, (image,) = web.rest.project({"crowd.tif": encode_tiff(pixels)})
    web.rest.call("POST", f"/images/{image}/labels?kind=instances&author=test", encode_labels(labels))
    count = int(labels.max())
    page = visit.open(f"{web.url}/#/p/{project}/i/{image}")
    canvas = ImageCanvas(page)
    canvas.cells(count)
    picture(page, "large-whole.png")
    canvas.point(1300, 1300)
    for _ in range(12):
        page.mouse.wheel(0, -120)
    page.wait_for_timeout(1500)
    picture(page, "large-near.png")
    free = np.argwhere(labels[1290:1310, 1290:1310] <= 0)
    assert len(free)
    y, x = free[0] + 1290
    page.keyboard.press("3")
    canvas.draw([(x, y), (x + 2, y)])
    canvas.saved()
    assert web.rest.get(f"/images/{image}")["revision"] >= 2
    page.keyboard.press("0")
    page.keyboard.press("5")
    canvas.draw(circle(650, 650, 200))
    canvas.saved()
    assert web.rest.get(f"/images/{image}")["cells"] < count
