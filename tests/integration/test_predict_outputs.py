"""Prediction's options against a real server process: channel, smallest cell, and the formats of the answer."""

import json

import grpc
import numpy as np
import pytest
from scipy import ndimage
from support.limits import PATIENCE
from support.server_process import ServerProcess
from support.tiny_dataset import blobs, write_dataset

from cellsparse_common.config.settings import StoreSettings
from cellsparse_common.errors import from_rpc_error
from cellsparse_common.imaging.images import decode_image, encode_tiff
from cellsparse_common.imaging.vector_labels import decode_vector_labels
from cellsparse_common.rpc.channel import open_channel
from cellsparse_common.storage import open_store
from cellsparse_proto.v1 import common_pb2, trainer_pb2, trainer_pb2_grpc

FORMATS = [trainer_pb2.OUTPUT_FORMAT_GEOJSON, trainer_pb2.OUTPUT_FORMAT_IMAGEJ_ROI]


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    store, work = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("work")
    write_dataset(open_store(StoreSettings(store_url=f"file://{store}")))
    with (
        ServerProcess(["-m", "support.cellsparse_fake"], store, work) as server,
        open_channel(server.address) as channel,
    ):
        stub = trainer_pb2_grpc.TrainerServiceStub(channel)
        train(stub, "run-mean")
        train(stub, "run-first", channel=0)
        yield stub


def train(stub, run_id, **settings):
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), **settings)
    asked = trainer_pb2.StartTrainingRequest(run_id=run_id, attempt=1, dataset_id="ds-tiny", settings=settings)
    stub.StartTraining(asked, timeout=PATIENCE)
    watched = stub.WatchTraining(trainer_pb2.WatchTrainingRequest(run_id=run_id, attempt=1), timeout=PATIENCE)
    assert list(watched)[-1].event.state == common_pb2.RUN_STATE_SUCCEEDED


def predict(stub, image, model_id="run-mean", **options):
    asked = trainer_pb2.PredictRequest(model_id=model_id, image=encode_tiff(image), **options)
    return stub.Predict(asked, timeout=PATIENCE)


def label_of(answer):
    return decode_image(answer.label, max_pixels=2**20).array


@pytest.fixture(scope="module")
def spotted():
    """An image in which the fake finds 4 discs, a ring of a large bounding box, and single bright pixels."""
    image, _ = blobs(size=80, seed=9)
    image[38:42, :] = image[:, 38:42] = 20
    image[1, 1::6] = 250
    image[78, 2:78] = image[2:78, 78] = image[2:78, 2] = image[2, 2:78] = 250
    return image


def test_small_cells_are_removed_and_the_others_renumbered(stub, spotted):
    everything = predict(stub, spotted)
    full = label_of(everything)
    sizes = np.bincount(full.ravel())[1:]
    kept = (sizes >= 20).sum()
    assert 4 <= kept < everything.cells == len(sizes)
    answer = predict(stub, spotted, min_pixels=20)
    label = label_of(answer)
    assert answer.cells == kept
    assert np.unique(label).tolist() == list(range(kept + 1))
    np.testing.assert_array_equal(label > 0, np.append(0, sizes)[full] >= 20)
    assert len(everything.scores) == everything.cells
    assert list(answer.scores) == [score for score, size in zip(everything.scores, sizes, strict=True) if size >= 20]
    assert len(set(answer.scores)) > 1
    assert 0 < min(answer.scores) <= max(answer.scores) <= 1
    assert predict(stub, spotted, min_pixels=80 * 80 + 1).cells == 0


@pytest.mark.parametrize("form", FORMATS, ids=trainer_pb2.OutputFormat.Name)
@pytest.mark.parametrize("min_pixels", [0, 20])
def test_outlines_are_the_label_image(stub, spotted, form, min_pixels):
    plain = predict(stub, spotted, min_pixels=min_pixels)
    answer = predict(stub, spotted, min_pixels=min_pixels, format=form)
    assert plain.label
    assert not plain.output
    assert not answer.label
    assert answer.cells == plain.cells == len(answer.scores)
    assert answer.scores == plain.scores
    drawn = decode_vector_labels(answer.output, shape=spotted.shape)
    np.testing.assert_array_equal(np.maximum(drawn, 0), label_of(plain))
    assert predict(stub, spotted, min_pixels=min_pixels, format=form).output == answer.output


def test_no_cell_is_a_file_without_features(stub):
    answer = predict(stub, np.zeros((20, 30), np.uint8), format=trainer_pb2.OUTPUT_FORMAT_GEOJSON)
    assert answer.cells == 0
    assert json.loads(answer.output)["features"] == []


def test_the_channel_of_the_request_comes_before_the_models(stub):
    image, _ = blobs(size=80, seed=9)
    other = np.ascontiguousarray(image[::-1, ::-1] // 2 + np.eye(80, dtype=np.uint8) * 60)
    both = np.stack([image, other], axis=2)
    for model_id in ("run-mean", "run-first"):
        for channel, plane in enumerate((image, other)):
            chosen = label_of(predict(stub, both, model_id, channel=channel))
            alone = label_of(predict(stub, plane, model_id, channel=0))
            np.testing.assert_array_equal(chosen, alone)
    as_trained = label_of(predict(stub, both, "run-first"))
    np.testing.assert_array_equal(as_trained, label_of(predict(stub, image, "run-first")))
    assert ndimage.label(as_trained)[1] == 4


@pytest.mark.parametrize(("shape", "channel"), [((20, 30), 1), ((20, 30, 3), 3), ((20, 30, 3), 7)])
def test_a_channel_that_is_not_there_is_named(stub, shape, channel):
    with pytest.raises(grpc.RpcError) as caught:
        predict(stub, np.zeros(shape, np.uint8), channel=channel)
    error = from_rpc_error(caught.value)
    assert error.status == grpc.StatusCode.INVALID_ARGUMENT
    assert error.violations[0][0] == "channel"
    assert str(channel) in error.message


def test_names_of_channels_that_do_not_fit_are_refused(stub):
    with pytest.raises(grpc.RpcError, match="There are 2 names of channels; the image has 3"):
        predict(stub, np.zeros((20, 30, 3), np.uint8), image_channels=["a", "b"])


def test_options_out_of_range_are_named(stub):
    with pytest.raises(grpc.RpcError) as caught:
        predict(stub, np.zeros((20, 30), np.uint8), min_pixels=2**26 + 1, format=9)
    fields = [field for field, _ in from_rpc_error(caught.value).violations]
    assert fields == ["min_pixels", "format"]


def test_evaluate_says_whether_the_labels_are_sparse(stub):
    reports = {}
    for split in (common_pb2.SPLIT_VAL, common_pb2.SPLIT_TEST):
        asked = trainer_pb2.EvaluateRequest(model_id="run-mean", dataset_id="ds-tiny", split=split, ious=[0.5])
        reports[split] = list(stub.Evaluate(asked, timeout=PATIENCE))[-1].report
    sparse, dense = reports[common_pb2.SPLIT_VAL], reports[common_pb2.SPLIT_TEST]
    assert (sparse.sparse, dense.sparse) == (True, False)
    # Two of four cells are labelled; the two found on unlabelled pixels are neither right nor wrong.
    assert (sparse.scores[0].tp, sparse.scores[0].fp, sparse.scores[0].fn) == (2, 0, 0)
    assert (dense.scores[0].tp, dense.scores[0].fp, dense.scores[0].fn) == (4, 0, 0)
    assert sparse.items[0].scores[0] == sparse.scores[0]
