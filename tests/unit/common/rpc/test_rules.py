import math

import pytest

from cellsparse_common.rpc.rules import violations
from cellsparse_proto.v1 import dataset_pb2, orchestrator_pb2, sparsifier_pb2, trainer_pb2


def good_settings() -> sparsifier_pb2.SparsifySettings:
    return sparsifier_pb2.SparsifySettings(
        mode=sparsifier_pb2.SELECTION_MODE_MINMAX, k=4, background=sparsifier_pb2.BACKGROUND_RULE_SHIFTED
    )


def fields(message) -> list[str]:
    return [path for path, _ in violations(message)]


def test_a_good_message_breaks_no_rule():
    request = sparsifier_pb2.SparsifyRequest(image=b"x", label=b"y", settings=good_settings())
    assert violations(request) == []


def test_all_violations_are_answered_at_once_with_their_paths():
    request = sparsifier_pb2.SparsifyRequest(
        settings=sparsifier_pb2.SparsifySettings(mode=99, k=0, background_distance=5000)
    )
    assert fields(request) == [
        "image",
        "label",
        "settings.mode",
        "settings.k",
        "settings.background",
        "settings.background_distance",
    ]


def test_sentences_name_the_value_and_what_is_allowed():
    sentences = dict(violations(sparsifier_pb2.SparsifySettings(mode=99, k=0, background=1)))
    assert "99" in sentences["mode"]
    assert "SELECTION_MODE_MINMAX" in sentences["mode"]
    assert sentences["k"] == "k is 0; allowed: 1 to 65535."


def test_a_required_oneof_must_be_set():
    settings = good_settings()
    settings.ClearField("k")
    assert fields(settings) == ["amount"]
    assert fields(trainer_pb2.TrainingSettings()) == ["backend"]


@pytest.mark.parametrize("percent", [0.0, -1.0, 100.5, math.nan, math.inf])
def test_numbers_outside_their_range(percent):
    settings = good_settings()
    settings.total_percent = percent
    assert fields(settings) == ["total_percent"]


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/b", ".hidden", "x" * 101, "a\nb", "a\x00b", "é"])
def test_names_that_are_no_names(name):
    assert fields(dataset_pb2.DatasetHeader(name=name)) == ["name"]


@pytest.mark.parametrize("value", ["../../x", "A", "-a", "a" * 64, "a/b", " "])
def test_ids_that_are_no_ids(value):
    assert fields(dataset_pb2.GetDatasetRequest(dataset_id=value)) == ["dataset_id"]
    assert fields(orchestrator_pb2.GetRunRequest(run_id=value)) == ["run_id"]


def test_optional_fields_that_are_not_set_are_not_checked():
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings())
    assert violations(settings) == []
    settings.steps = 0
    assert fields(settings) == ["steps"]


def test_multiples():
    settings = trainer_pb2.TrainingSettings(unet=trainer_pb2.UnetSettings(), crop_size=100)
    assert violations(settings) == [("crop_size", "crop_size is 100; allowed: 32 to 2048, multiples of 16.")]


def test_entries_of_lists_are_named_by_index_and_counted():
    request = trainer_pb2.EvaluateRequest(model_id="m", dataset_id="d", ious=[0.5, 0.0, 1.5])
    assert fields(request) == ["ious[1]", "ious[2]"]
    request = trainer_pb2.EvaluateRequest(model_id="m", dataset_id="d", ious=[0.5] * 33)
    assert fields(request) == ["ious"]


def test_length_of_bytes():
    assert fields(dataset_pb2.CreateDatasetRequest(chunk=b"0" * (2**20 + 1))) == ["chunk"]


def test_unknown_enum_numbers_in_lists():
    request = dataset_pb2.CreateSparseDatasetRequest(dataset_id="d", settings=good_settings(), splits=[1, 7])
    assert fields(request) == ["splits[1]"]
