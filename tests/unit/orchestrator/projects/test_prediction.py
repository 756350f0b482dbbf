"""Scores of cells through windows: what every part of an image answers ends at the right cell."""

import numpy as np
import pytest
from unit.orchestrator.projects.test_training_parts import discs

from cellsparse_common.datasets import put_blob
from cellsparse_common.errors import Internal
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.imaging.labels import encode_labels
from cellsparse_common.storage import FolderStore, keys
from cellsparse_orchestrator.catalogue.transfers import Transfers
from cellsparse_orchestrator.projects import prediction
from cellsparse_orchestrator.projects.prediction import predict_image
from cellsparse_orchestrator.projects.tiling import Extent
from cellsparse_proto.v1 import trainer_pb2


@pytest.fixture
def store(tmp_path):
    return FolderStore(tmp_path)


def predict(store, true, answer, max_pixels):
    """Predict an image whose pixels are the cells' numbers."""
    sha256 = put_blob(store, encode_tiff(true.astype(np.uint16)))
    extent = Extent(height=true.shape[0], width=true.shape[1], planes=1)
    request, transfers = trainer_pb2.PredictRequest(model_id="m"), Transfers(store)

    def by_store(asked):
        return transfers.predict_data(asked, lambda sent: through_the_store(store, sent, answer))

    return predict_image(store, sha256, extent, request, answer, by_store, max_pixels)


def through_the_store(store, sent, answer):
    """Answer as a trainer does that was sent an image by way of the store."""
    assert not sent.image
    asked = trainer_pb2.PredictRequest(image=store.get(keys.transfer(sent.transfer_id, "image")))
    found = answer(asked)
    store.put(keys.transfer(sent.transfer_id, "result"), found.label)
    found.ClearField("label")
    return found


def known(request):
    """Answer the cells of a window; each is as sure as its number, those cut by the window's edge half as sure."""
    part = decode_image(request.image, max_pixels=10**6).array.astype(np.int32)
    numbers, labels = np.unique(np.append(part.ravel(), 0), return_inverse=True)
    cut = np.unique(np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]]))
    scores = [number / 1000 * (0.5 if number in cut else 1) for number in numbers[1:]]
    labels = labels[:-1].reshape(part.shape).astype(np.int32)
    return trainer_pb2.PredictResponse(label=encode_labels(labels), cells=len(scores), scores=scores)


@pytest.mark.parametrize("max_pixels", [10**6, 4900])
def test_every_cell_has_the_score_of_the_window_that_shows_most_of_it(store, max_pixels):
    true = discs(200, 60, seed=3)
    found = predict(store, true, known, max_pixels)
    assert found.labels.max() == true.max() == len(found.scores) - 1
    for number in range(1, true.max() + 1):
        (same,) = np.unique(found.labels[true == number])
        ys, xs = (true == number).nonzero()
        if min(ys.min(), xs.min()) > 0 and max(ys.max(), xs.max()) < 199:
            assert found.scores[same] == pytest.approx(number / 1000)


def test_a_file_that_fits_into_no_message_is_segmented_as_a_whole(store, monkeypatch):
    true = discs(200, 60, seed=3)
    whole = predict(store, true, known, 10**6)
    monkeypatch.setattr(prediction, "MAX_BYTES", 100)
    found = predict(store, true, known, 10**6)
    np.testing.assert_array_equal(found.labels, whole.labels)
    np.testing.assert_array_equal(found.scores, whole.scores)
    assert list(store.list(keys.TRANSFERS)) == []


def test_a_prediction_leaves_that_of_another_orchestrator_alone(store):
    """The end of one must not sweep away the image of another that is under way."""

    def within(sent):
        end = Transfers(store).predict_data(trainer_pb2.PredictRequest(image=b"b"), lambda sent: answered(sent))
        assert end.label == b"labels"
        assert store.get(keys.transfer(sent.transfer_id, "image")) == b"a"
        return answered(sent)

    def answered(sent):
        store.put(keys.transfer(sent.transfer_id, "result"), b"labels")
        return trainer_pb2.PredictResponse()

    assert Transfers(store).predict_data(trainer_pb2.PredictRequest(image=b"a"), within).label == b"labels"
    assert list(store.list(keys.TRANSFERS)) == []


def test_an_image_without_cells_has_no_scores(store):
    found = predict(store, np.zeros((90, 90), np.int32), known, 4900)
    assert not found.labels.any()
    assert found.scores.tolist() == [0]


def test_scores_that_are_not_one_per_cell_are_refused(store):
    def wrong(request):
        answer = known(request)
        answer.scores.append(0.5)
        return answer

    with pytest.raises(Internal, match="scores for"):
        predict(store, discs(60, 9, seed=0), wrong, 10**6)
