"""Protocol buffers as JSON and back."""

import pytest
from google.protobuf import json_format

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.messages import enum_number, enum_words, from_json, to_json
from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, project_pb2, study_pb2, trainer_pb2


def run() -> orchestrator_pb2.Run:
    made = orchestrator_pb2.Run(id="run-1", state=common_pb2.RUN_STATE_RUNNING, priority=-3)
    made.created_at.FromJsonString("2026-01-02T03:04:05Z")
    made.settings.unet.class_weights[:] = [1.0, 2.5, 3.0]
    made.progress.losses["loss"] = 0.25
    made.progress.sequence = 2**60
    return made


def test_it_is_protobufs_json_but_for_64_bit_numbers():
    ours = to_json(run())
    theirs = json_format.MessageToDict(
        run(), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert theirs["progress"]["sequence"] == str(2**60)
    assert ours["progress"]["sequence"] == 2**60

    def as_numbers(value: object, like: object) -> object:
        if isinstance(value, dict):
            return {key: as_numbers(entry, like[key]) for key, entry in value.items()}
        return int(value) if isinstance(like, int) and isinstance(value, str) else value

    assert as_numbers(theirs, ours) == ours


def test_it_comes_back():
    assert from_json(orchestrator_pb2.Run, to_json(run())) == run()
    patch = project_pb2.LabelPatch(x=1, width=2, height=3, data=b"\x00\xff")
    assert from_json(project_pb2.LabelPatch, to_json(patch)) == patch


def test_numbers_that_json_does_not_know_are_texts():
    event = trainer_pb2.TrainingEvent(losses={"loss": float("nan")}, eta_seconds=float("inf"))
    assert (to_json(event)["losses"], to_json(event)["eta_seconds"]) == ({"loss": "NaN"}, "Infinity")


def test_what_the_address_names_wins():
    body = {"project_id": "other", "name": "x"}
    assert from_json(project_pb2.RenameProjectRequest, body, project_id="mine").project_id == "mine"


@pytest.mark.parametrize("content", [None, [], "x", {"nane": 1}, {"name": 1}, {"name": "\ud800"}, {"name": {}}])
def test_what_does_not_fit_is_one_sentence(content):
    with pytest.raises(InvalidArgument, match=r"^The body (must be|does not fit: ).*\.$"):
        from_json(project_pb2.CreateProjectRequest, content)


def test_infinity_is_no_value_of_an_enum():
    with pytest.raises(InvalidArgument, match=r"^The body does not fit: .*infinity.*\.$"):
        from_json(study_pb2.CreateStudyRequest, {"split": float("inf")})


def test_a_document_that_nests_without_end_is_refused():
    nested: dict = {}
    for _ in range(100_000):
        nested = {"settings": nested}
    with pytest.raises(InvalidArgument):
        from_json(orchestrator_pb2.CreateRunRequest, nested)


def test_enums_by_long_and_short_names():
    kinds = dataset_pb2.LabelKind.DESCRIPTOR
    assert enum_number(kinds, "binary", "kind") == enum_number(kinds, "LABEL_KIND_BINARY", "kind") == 2
    assert enum_number(kinds, "", "kind") == 0
    assert enum_words(kinds) == ["instances", "binary", "offset_by_one"]
    for wrong in ("unspecified", "nonsense"):
        with pytest.raises(InvalidArgument, match="allowed: instances, binary, offset_by_one"):
            enum_number(kinds, wrong, "kind")
