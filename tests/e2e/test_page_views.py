"""The page's other views: projects and files, channels, planes, contrast; and that nothing comes from elsewhere."""

import io
import json
import zipfile

import numpy as np
import pytest
import tifffile
from support.browser import ImageCanvas, Rest, circle, picture

from cellsparse_common.imaging.images import encode_tiff


@pytest.fixture
def calm(visit):
    """A window of someone who has seen the first steps."""
    visit.context.add_init_script("if (location.origin !== 'null') localStorage.setItem('cellsparse.tour', 'gone');")
    return visit


def field(seed: int = 0, shape: tuple[int, ...] = (200, 260)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)


def test_a_project_is_made_filled_saved_and_opened_again(web, calm, tmp_path):
    files = []
    for index in range(2):
        path = tmp_path / f"field-{index}.tif"
        path.write_bytes(encode_tiff(field(index)))
        files.append(path)
    page = calm.open(web.url)
    page.get_by_label("Name of the new project").fill("Yeast")
    page.get_by_role("button", name="New project").click()
    page.locator("input[type=file][multiple]").set_input_files(files)
    page.locator(".thumb").nth(1).wait_for()
    page.wait_for_function("() => [...document.images].every(image => image.complete && image.naturalWidth > 0)")
    picture(page, "project.png")
    page.get_by_role("link", name="field-1.tif").click()
    canvas = ImageCanvas(page)
    page.keyboard.press("2")
    canvas.draw(circle(100, 100, 20))
    canvas.saved()
    page.get_by_role("link", name="Images").click()
    page.locator(".badge", has_text="1").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save project (zip)").click()
    archive = tmp_path / "project.zip"
    download.value.save_as(archive)
    assert zipfile.is_zipfile(archive)
    page.get_by_role("link", name="Cellsparse: all projects").click()
    page.get_by_label("Open a project file").set_input_files(archive)
    page.locator(".badge", has_text="1").wait_for()
    assert len([p for p in web.rest.get("/projects?page_size=100")["projects"] if p["name"].startswith("Yeast")]) == 2


def test_a_file_that_is_no_image_is_refused_with_a_sentence(web, calm, tmp_path):
    project, _ = web.rest.project({})
    broken = tmp_path / "notes.tif"
    broken.write_bytes(b"these are no pixels")
    page = calm.open(f"{web.url}/#/p/{project}")
    page.locator("input[type=file][multiple]").set_input_files(broken)
    page.get_by_role("alert").filter(has_text="notes.tif").wait_for()
    page.get_by_role("button", name="Close the list").click()
    files = [broken, tmp_path / "more.png", tmp_path / "cells.czi", tmp_path / "good.tif"]
    files[1].write_bytes(b"nor are these")
    files[2].write_bytes(b"a microscope's own")
    files[3].write_bytes(encode_tiff(field()))
    page.locator("input[type=file][multiple]").set_input_files(files)
    page.get_by_role("alert").filter(has_text="2 files were not added").wait_for()
    told = page.get_by_label("Files that were not added").locator("li").all_inner_texts()
    assert [text.split()[0] for text in told] == ["notes.tif", "more.png", "cells.czi"]
    assert "not a TIFF" in told[0]
    assert "converts it on your computer" in told[2]
    page.get_by_role("link", name="good.tif").wait_for()


def test_a_time_point_of_a_series_is_chosen(web, calm, tmp_path):
    project, _ = web.rest.project({})
    movie = tmp_path / "movie.tif"
    tifffile.imwrite(movie, field(2, (3, 100, 120)), imagej=True, metadata={"axes": "TYX"})
    page = calm.open(f"{web.url}/#/p/{project}")
    page.locator("input[type=file][multiple]").set_input_files(movie)
    page.get_by_role("alert").filter(has_text="choose a time point with time").wait_for()
    page.get_by_label("Time point (time)").fill("2")
    page.locator("input[type=file][multiple]").set_input_files(movie)
    page.get_by_role("link", name="movie.tif").wait_for()


def test_channels_planes_and_contrast_of_a_16_bit_stack(web, calm):
    stack = field(1, (3, 4, 200, 260))  # planes, channels
    project, (image,) = web.rest.project({"stack.tif": encode_stack(stack)})
    shown = web.rest.get(f"/images/{image}")
    assert (shown["planes"], shown["channels"]) == (3, 4)
    page = calm.open(f"{web.url}/#/p/{project}/i/{image}")
    canvas = ImageCanvas(page)
    page.get_by_label("Channel 2", exact=True).uncheck()
    page.get_by_role("button", name="Automatic contrast of channel 1").click()
    page.locator(".train-form summary").click()
    page.get_by_label("Channel 1 of the network").select_option(label="Channel 3")
    page.get_by_label("Channel 2 of the network").select_option(label="Channel 1")
    assert page.get_by_label("Channel 3 of the network").locator("option").all_inner_texts() == [
        "no further channel",
        "Channel 2",
        "Channel 4",
    ]
    page.get_by_label("Channel 1 of the network").select_option(label="as the method does by itself")
    page.locator(".train-form summary").click()
    page.keyboard.press("2")
    page.keyboard.press(".")
    page.get_by_text("Plane 2 of 3").wait_for()
    canvas.draw(circle(100, 100, 20))
    canvas.saved()
    picture(page, "stack.png")
    (cell,) = web.rest.get(f"/images/{image}/cells")["cells"]
    assert (cell["plane"], cell["planes"]) == (1, 1)


def encode_stack(pixels: np.ndarray) -> bytes:
    """Return planes and channels as an ImageJ TIFF: axes ZCYX."""
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, imagej=True, metadata={"axes": "ZCYX"})
    return file.getvalue()


def test_labels_as_files(web, calm, tmp_path):
    project, (image,) = web.rest.project({"field.tif": encode_tiff(field())})
    page = calm.open(f"{web.url}/#/p/{project}/i/{image}")
    canvas = ImageCanvas(page)
    page.keyboard.press("2")
    canvas.draw(circle(100, 100, 20))
    canvas.saved()
    page.get_by_text("Labels as files").click()
    for name, title in (
        ("marks.tif", "TIFF"),
        ("marks.geojson", "GeoJSON"),
        ("marks.zip", "ImageJ ROI"),
        ("marks.json", "COCO"),
    ):
        with page.expect_download() as download:
            page.get_by_role("button", name=title, exact=True).first.click()
        download.value.save_as(tmp_path / name)
    labels = tifffile.imread(tmp_path / "marks.tif")
    assert labels[100, 100] == 1
    assert labels[0, 0] == -1
    assert json.loads((tmp_path / "marks.geojson").read_text())["features"]
    assert zipfile.is_zipfile(tmp_path / "marks.zip")
    assert json.loads((tmp_path / "marks.json").read_text())["annotations"]


def test_the_sheet_of_keys_and_the_first_steps_go_away_for_ever(web, visit):
    project, (image,) = web.rest.project({"field.tif": encode_tiff(field())})
    page = visit.open(f"{web.url}/#/p/{project}/i/{image}")
    ImageCanvas(page)
    page.locator("#tour").wait_for()
    page.get_by_role("button", name="Do not show again").click()
    page.reload()
    ImageCanvas(page)
    assert page.locator("#tour").count() == 0


def test_every_control_has_a_name(web, calm):
    project, (image,) = web.rest.project({"field.tif": encode_tiff(field())})
    for place in (
        "",
        "#/prompters",
        f"#/p/{project}",
        f"#/p/{project}/i/{image}",
        f"#/p/{project}/trainings",
        f"#/p/{project}/models",
    ):
        page = calm.open(f"{web.url}/{place}")
        page.wait_for_load_state("networkidle")
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, a, input, select, canvas, summary')].filter(element =>
              !(element.getAttribute('aria-label') || element.textContent.trim() || element.labels?.length
                || element.title)).map(element => element.outerHTML.slice(0, 120))"""
        )
        assert not nameless, place
        page.close()


def test_nothing_comes_from_elsewhere_and_no_script_stands_in_the_page(web, calm):
    asked: list[str] = []
    calm.context.on("request", lambda request: asked.append(request.url))
    project, (image,) = web.rest.project({"field.tif": encode_tiff(field())})
    for place in ("", f"#/p/{project}", f"#/p/{project}/i/{image}", f"#/p/{project}/compare"):
        page = calm.open(f"{web.url}/{place}")
        page.wait_for_load_state("networkidle")
        page.close()
    assert len(asked) > 20
    assert all(url.startswith((web.url, "blob:", "data:")) for url in asked)
    headers, _ = Rest(web.url).call("GET", "/")
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
