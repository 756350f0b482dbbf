"""Segment Anything models are brought, tried and removed through the page."""

import zipfile

import numpy as np
import pytest
from support.browser import ImageCanvas, picture, said
from support.tiny_sam import decoder, encoder, sha256

from cellsparse_common.imaging.images import encode_tiff

PAIR = (encoder(prepares=True), decoder())


@pytest.fixture
def calm(visit, web):
    """A window of someone who has seen the first steps; what was added is gone afterwards."""
    visit.remember("cellsparse.tour", "gone")
    yield visit
    for prompter in web.rest.get("/prompters")["prompters"]:
        web.rest.call("DELETE", f"/prompters/{prompter['name']}")


def files(folder, pair=PAIR, name="mobile_sam"):
    paths = [folder / f"{name}.{part}.onnx" for part in ("encoder", "decoder")]
    for path, data in zip(paths, pair, strict=True):
        path.write_bytes(data)
    return paths


def choose(page, paths):
    page.get_by_label("Encoder (.onnx)").set_input_files(paths[0])
    page.get_by_label("Decoder (.onnx)").set_input_files(paths[1])


def test_two_files_are_added_and_answer_clicks_in_the_page(web, calm, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4000, (300, 400)).astype(np.uint16)
    project, (image,) = web.rest.project({"field.tif": encode_tiff(pixels)})
    page = calm.open(web.url)
    page.get_by_role("link", name="Models for clicks").click()
    page.get_by_role("listitem").filter(has_text="From the pixels").wait_for()
    choose(page, files(tmp_path))
    assert page.get_by_label("Name", exact=True).input_value() == "mobile-sam"
    page.get_by_label("Licence of the weights").fill("Apache-2.0 (mine)")
    picture(page, "prompters.png")
    page.get_by_role("button", name="Add model").click()
    said(page, '"mobile-sam" is added and works.')
    row = page.get_by_role("listitem").filter(has_text="Segment Anything mobile-sam")
    assert "Licence: Apache-2.0 (mine)" in row.inner_text()
    picture(page, "prompters-added.png")
    (stored,) = web.rest.get("/prompters")["prompters"]
    assert [stored[part]["sha256"] for part in ("encoder", "decoder")] == [sha256(data) for data in PAIR]

    page.goto(f"{web.url}/#/p/{project}/i/{image}")
    canvas = ImageCanvas(page)
    with page.expect_response(lambda answer: answer.url.endswith("/prompt")) as answer:
        canvas.click(200, 150)
    assert answer.value.json()["prompter"] == "mobile-sam"
    canvas.cells(1)
    canvas.saved()

    page.goto(f"{web.url}/#/prompters")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove mobile-sam").click()
    row.wait_for(state="detached")
    assert web.rest.get("/prompters")["prompters"] == []


def test_a_zip_is_added_by_keyboard_alone(web, calm, tmp_path):
    archive = tmp_path / "tiny-sam.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in zip(("encoder.onnx", "decoder.onnx"), PAIR, strict=True):
            file.writestr(name, data)
    page = calm.open(f"{web.url}/#/prompters")
    page.get_by_role("listitem").filter(has_text="From the pixels").wait_for()
    picker = page.get_by_label("Zip of encoder.onnx and decoder.onnx")
    picker.focus()
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(archive)
    page.get_by_label("Name", exact=True).focus()
    page.keyboard.press("Tab")
    page.keyboard.type("MIT")
    page.keyboard.press("Enter")
    said(page, '"tiny-sam" is added and works.')
    assert [each["name"] for each in web.rest.get("/prompters")["prompters"]] == ["tiny-sam"]
    # The focus was in a field that was disabled meanwhile; it is at the button now.
    page.wait_for_function("() => document.activeElement.textContent === 'Add model'")


def test_what_the_server_refuses_is_said_in_its_words(web, calm, tmp_path):
    page = calm.open(f"{web.url}/#/prompters")
    problem = page.get_by_role("alert")
    add = page.get_by_role("button", name="Add model")
    page.get_by_label("Name", exact=True).fill("auto")
    page.get_by_label("Licence of the weights").fill("MIT")
    add.click()
    problem.filter(has_text="Choose the encoder and the decoder, or a zip of both.").wait_for()
    choose(page, files(tmp_path))
    add.click()
    problem.filter(has_text="taken by a built-in prompter").wait_for()
    choose(page, files(tmp_path, (b"\x80\x02.", PAIR[1]), "pickle"))
    page.get_by_label("Name", exact=True).fill("wrong")
    add.click()
    problem.filter(has_text="samexporter").wait_for()
    picture(page, "prompters-refused.png")
    assert web.rest.get("/prompters")["prompters"] == []
    choose(page, files(tmp_path, (decoder(), decoder()), "twice"))
    add.click()
    problem.filter(has_text="'wrong' does not work here.").filter(has_text="It is kept, in the list above.").wait_for()
    page.get_by_role("button", name="Remove wrong").wait_for()
    page.get_by_label("Zip of").set_input_files({"name": "a.zip", "mimeType": "", "buffer": b"this is no zip"})
    add.click()
    problem.filter(has_text="This is not a zip file.").wait_for()
    # A file that is written anew after it was chosen cannot be read: it is to be chosen again.
    choose(page, files(tmp_path, name="later"))
    files(tmp_path, (PAIR[0] + b"more", PAIR[1]), "later")
    add.click()
    problem.filter(has_text="later.encoder.onnx cannot be read").wait_for()


def test_an_upload_shows_how_far_it_is_and_is_given_up(web, calm, tmp_path):
    page = calm.open(f"{web.url}/#/prompters")
    choose(page, files(tmp_path, (PAIR[0] + bytes(60_000_000), PAIR[1])))
    page.get_by_label("Licence of the weights").fill("MIT")
    # A slow line: 1 MB/s.
    session = calm.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": 1e6, "uploadThroughput": 1e6}
    session.send("Network.emulateNetworkConditions", slow)
    page.get_by_role("button", name="Add model").click()
    page.get_by_role("status").filter(has_text="Sending ").wait_for()
    assert page.get_by_label("Progress").is_visible()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("alert").filter(has_text="Given up; nothing of it is kept.").wait_for()
    page.get_by_role("button", name="Add model").wait_for()
    assert web.rest.get("/prompters")["prompters"] == []
