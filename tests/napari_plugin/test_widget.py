"""Draw, train, see: the whole way of a user through the widget."""

import numpy as np
import pytest

pytest.importorskip(
    "napari.qt", reason="napari or its Qt is not installed here; see `make test-napari`", exc_type=ImportError
)

from support.orchestrator import Orchestrator
from support.qt_loop import turn_until
from support.tiny_dataset import blobs

from cellsparse_napari.labels import TITLES, Background

LONG = 1_000_000
"""Steps that no test waits for."""


def choose(widget, background):
    widget.drawing.background.setCurrentIndex(list(TITLES).index(background))


def segmented(viewer):
    return [layer for layer in viewer.layers if "segmented" in layer.name]


def texts(widget, monkeypatch):
    """All that the status line says."""
    said = []
    keep = type(widget.status).setText
    monkeypatch.setattr(widget.status, "setText", lambda text: (said.append(text), keep(widget.status, text)))
    return said


def test_a_few_cells_become_a_model_and_a_layer_in_the_images_place(
    viewer, widget, drawn, orchestrator, monkeypatch, notices
):
    said = texts(widget, monkeypatch)
    widget.train.click()
    assert widget.busy
    assert not widget.train.isEnabled()
    turn_until(lambda: not widget.busy)

    assert not notices
    (layer,) = segmented(viewer)
    assert layer.data.shape == (64, 64)
    assert layer.data.max() >= 1
    assert tuple(layer.scale) == (0.5, 0.25)
    assert tuple(layer.translate) == (10, 20)
    assert any(text.startswith("Training: step 20 of 20, loss ") for text in said), said
    assert any("score " in text for text in said), said
    assert widget.status.text().endswith("cells found in field.")
    model = widget.model.model()
    assert layer.metadata["cellsparse_model"] == model
    run = orchestrator.run(model)
    assert run.backend == "unet"
    assert widget.train.isEnabled()
    assert widget.segment.isEnabled()


def test_the_next_training_starts_from_the_model(viewer, widget, drawn, orchestrator):
    widget.train.click()
    turn_until(lambda: not widget.busy)
    first = widget.model.model()
    widget.train.click()
    turn_until(lambda: not widget.busy)
    assert widget.model.model() != first
    assert orchestrator.run(widget.model.model()).settings.initial_model == first


def test_background_of_a_second_layer_and_several_images_reach_the_server(viewer, widget, drawn, orchestrator):
    choose(widget, Background.OTHER_LAYER)
    widget.drawing.new_background.click()
    widget.drawing.drawn_background.layer().data[:3] = 1
    widget.drawing.add.click()

    image, label = blobs(seed=1)
    viewer.add_image(np.stack([image] * 3, axis=-1), name="field", rgb=True)
    dense = viewer.add_labels(label, name="dense")
    widget.drawing.image.setCurrentIndex(1)
    widget.drawing.cells.choose(dense)
    choose(widget, Background.ZERO)
    assert widget.train.text() == "Train on 2 images"
    widget.train.click()
    turn_until(lambda: not widget.busy)

    dataset = orchestrator.run(widget.model.model()).dataset_id
    import cellsparse

    with cellsparse.Client(orchestrator.address) as client:
        items = [client.dataset_item(dataset, item.name) for item in client.dataset_items(dataset)]
    assert [item.name for item in items] == ["field", "field 1"]
    assert [item.image.shape for item in items] == [(64, 64), (64, 64, 3)]
    assert set(np.unique(items[0].label)) == {-1, 0, 1, 2}
    assert (items[0].label[:3] == 0).all()
    np.testing.assert_array_equal(items[1].label, label)
    assert len(segmented(viewer)) == 2


def test_a_stack_is_trained_on_and_segmented_as_one(viewer, widget, orchestrator):
    image, label = blobs()
    viewer.add_image(np.stack([image] * 6), name="stack", scale=(2.0, 0.5, 0.5))
    widget.drawing.new_cells.click()
    widget.drawing.cells.layer().data[:] = np.stack([label] * 6)
    widget.train.click()
    turn_until(lambda: not widget.busy)
    (layer,) = segmented(viewer)
    assert layer.data.shape == (6, 64, 64)
    assert tuple(layer.scale) == (2.0, 0.5, 0.5)


def test_cancel_ends_the_training_and_the_window_lives_on_meanwhile(viewer, widget, drawn, orchestrator):
    widget.model.steps.setValue(LONG)
    widget.model.preset.setCurrentIndex(widget.model.preset.findData("paper"))  # which never ends early
    widget.train.click()
    turns = turn_until(lambda: widget.status.text().startswith("Training: step"))
    assert turns > 1
    widget.cancel.click()
    assert widget.status.text() == "Cancelling ..."
    turn_until(lambda: not widget.busy)
    assert widget.status.text() == "The training was cancelled."
    assert not segmented(viewer)
    assert widget.train.isEnabled()


@pytest.fixture
def own_server(widget, monkeypatch, tmp_path):
    """A server for one test, which the widget finds by the file in its home folder, as after `cellsparse up`."""
    monkeypatch.delenv("CELLSPARSE_ADDRESS", raising=False)
    monkeypatch.setenv("CELLSPARSE_HOME", str(tmp_path))
    widget.model.address.clear()
    widget.model.steps.setValue(LONG)
    widget.model.preset.setCurrentIndex(widget.model.preset.findData("paper"))
    yield lambda: Orchestrator(tmp_path)
    with Orchestrator(tmp_path):
        pass  # takes over what a killed one left running, and ends it


def test_a_server_that_restarts_while_it_trains_is_found_again(viewer, widget, drawn, notices, own_server):
    with own_server() as first:
        widget.train.click()
        turn_until(lambda: widget.status.text().startswith("Training: step"))
        first.kill()
        turn_until(lambda: "Trying again ..." in widget.status.text())
        assert widget.status.text().startswith(f"No orchestrator answers at {first.address}")
    with own_server():
        turn_until(lambda: widget.status.text().startswith("Training: step"))
        widget.cancel.click()
        turn_until(lambda: not widget.busy)
    assert widget.status.text() == "The training was cancelled."
    assert not notices


def test_cancelling_while_the_server_is_away_says_that_the_training_may_go_on(widget, drawn, notices, own_server):
    with own_server() as server:
        widget.train.click()
        turn_until(lambda: widget.status.text().startswith("Training: step"))
        server.kill()
        widget.cancel.click()
        turn_until(lambda: not widget.busy)
    (notice,) = notices
    assert notice.startswith(f"No orchestrator answers at {server.address}")
    assert notice.endswith("was not cancelled and may go on there.")


def test_a_server_that_is_away_is_one_sentence(widget, drawn, notices):
    widget.model.address.setText("127.0.0.1:9")
    widget.train.click()
    turn_until(lambda: not widget.busy)
    assert notices == ["No orchestrator answers at 127.0.0.1:9; `cellsparse up` starts one."]
    assert widget.status.text() == notices[0]


def test_a_server_that_never_answers_does_not_hold_the_window_and_can_be_cancelled(widget, drawn, notices, silent):
    widget.model.address.setText(silent.address)
    widget.train.click()
    turn_until(silent.asked.is_set)
    assert widget.busy
    widget.cancel.click()
    turn_until(lambda: not widget.busy)
    assert not notices
    assert widget.status.text() == "Cancelled."


@pytest.mark.parametrize(
    ("background", "sentence"),
    [(Background.NOT_MARKED, "No cell is drawn: paint"), (Background.FIRST_LABEL, "No cell is drawn: label 1 is")],
)
def test_without_a_cell_nothing_is_sent(widget, drawn, notices, background, sentence):
    choose(widget, background)
    drawn.data[:] = 0
    drawn.data[:3] = background is Background.FIRST_LABEL
    widget.train.click()
    turn_until(lambda: not widget.busy)
    (notice,) = notices
    assert notice.startswith(sentence)


def test_without_layers_a_sentence_says_what_to_do(widget, notices):
    widget.train.click()
    assert notices == ["There is no image; open one in napari first."]


def test_a_model_is_saved_from_the_widget(widget, drawn, tmp_path, notices):
    widget.train.click()
    turn_until(lambda: not widget.busy)
    widget.save_model("native", tmp_path / "model")
    turn_until(lambda: not widget.busy)
    assert (tmp_path / "model.zip").stat().st_size > 0
    assert notices == [f"The model is saved in {tmp_path / 'model.zip'}."]

    widget.save_model("native", tmp_path / "model")
    turn_until(lambda: not widget.busy)
    assert notices[1].startswith(f"{tmp_path / 'model.zip'} is there already")
    widget.save_model("native", tmp_path / "model.zip")
    turn_until(lambda: not widget.busy)
    assert len(notices) == 3


def test_a_new_image_is_segmented_with_an_earlier_model(viewer, widget, drawn):
    widget.train.click()
    turn_until(lambda: not widget.busy)
    image, _ = blobs(seed=3)
    viewer.add_image(image, name="new", scale=(3, 3))
    widget.drawing.image.setCurrentIndex(1)
    widget.segment.click()
    turn_until(lambda: not widget.busy)
    assert segmented(viewer)[-1].name == "new segmented"
    assert tuple(segmented(viewer)[-1].scale) == (3, 3)


def test_models_of_the_server_are_offered_for_their_backend_only(widget, drawn):
    widget.train.click()
    turn_until(lambda: not widget.busy)
    model = widget.model.model()
    widget.model.set_models([])
    assert widget.model.initial_model.findData(model) < 0
    widget.model.reload.click()
    turn_until(lambda: widget.model.initial_model.findData(model) >= 0)

    widget.model.set_models([])
    widget.show()  # for the first time, as a user opens it
    turn_until(lambda: widget.model.initial_model.findData(model) >= 0)
    widget.model.backend.setCurrentIndex(widget.model.backend.findData("cellpose"))
    assert widget.model.initial_model.findData(model) < 0


def test_layers_come_and_go_and_are_renamed(viewer, widget, drawn):
    drawn.name = "my cells"
    widget.drawing.cells.refresh()
    assert widget.drawing.cells.currentText() == "my cells"
    viewer.layers.remove(drawn)
    assert widget.drawing.cells.layer() is None


def test_opening_the_widget_without_a_server_is_a_hint_and_no_notice(viewer, widget, notices):
    widget.model.address.setText("127.0.0.1:9")
    widget.show()
    assert not widget.busy
    turn_until(lambda: "`cellsparse up` starts one." in widget.status.text())
    assert notices == []


def test_what_cannot_be_done_with_a_layer_is_one_sentence(viewer, widget, notices):
    widget.drawing.new_cells.click()
    widget.drawing.add.click()
    viewer.add_image(np.zeros((2, 3, 4, 8, 8), np.uint8), name="five axes")
    widget.drawing.new_cells.click()
    assert notices[:2] == ["There is no image; open one in napari first."] * 2
    assert notices[2].startswith("Image 'five axes' has the size 2 x 3 x 4 x 8 x 8; allowed: one plane")


def test_a_layer_in_micrometres_gets_its_labels_in_micrometres(viewer, widget):
    viewer.add_image(np.zeros((8, 8), np.uint8), name="field", scale=(0.5, 0.5), units=("um", "um"))
    widget.drawing.new_cells.click()
    made = widget.drawing.cells.layer()
    assert tuple(map(str, made.units)) == ("micrometer", "micrometer")


def test_removing_a_layer_removes_the_image_from_the_list(viewer, widget, drawn):
    widget.drawing.add.click()
    assert widget.drawing.list.count() == 1
    viewer.layers.remove(drawn)
    assert widget.drawing.list.count() == 0
