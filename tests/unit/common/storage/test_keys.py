"""Object keys: where everything lies, and what can never become a key."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.storage import keys
from cellsparse_proto.v1 import dataset_pb2, rules_pb2

SHA = "0f" * 32

BAD_KEYS = [
    "", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../x", "a/../b", "a/..", ".hidden", "a/.hidden", "a\\b",
    "a\0b", "a\nb", "a\n", "ä", "a/日本", "a*b", "a?b", "a%2e", "a:b", " a", "a/ b", "-a", "a/" + "x" * 256,
    "a/" * 500 + "a", "x" * 901,
]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (keys.dataset_manifest("d-1"), "datasets/d-1/manifest.json"),
        (keys.blob(SHA), f"blobs/0f/{SHA}"),
        (keys.run_spec("r1"), "runs/r1/spec.json"),
        (keys.attempt_events("r1", 2), "runs/r1/attempts/2/events.jsonl"),
        (keys.attempt_log("r1", 2), "runs/r1/attempts/2/log.txt"),
        (keys.checkpoint("r1", 150, "weights.pt"), "runs/r1/checkpoints/00000150/weights.pt"),
        (keys.checkpoint_pointer("r1", "LATEST"), "runs/r1/checkpoints/LATEST"),
        (keys.checkpoint_pointer("r1", "BEST"), "runs/r1/checkpoints/BEST"),
        (keys.model_file("r1", "thresholds.json"), "runs/r1/model/thresholds.json"),
        (keys.report_file("r1", "loss.png"), "runs/r1/report/loss.png"),
    ],
)
def test_every_key_lies_where_the_architecture_says(key: str, expected: str) -> None:
    assert keys.check_key(key) == expected


def test_prefixes_hold_their_keys_and_no_neighbours() -> None:
    assert keys.dataset_manifest("d").startswith(keys.dataset_prefix("d"))
    assert keys.checkpoint("r", 1, "w").startswith(keys.checkpoint_prefix("r", 1))
    assert keys.checkpoint_prefix("r", 1).startswith(keys.checkpoints_prefix("r"))
    assert keys.model_file("r", "m").startswith(keys.model_prefix("r"))
    assert not keys.run_spec("r1").startswith(keys.run_prefix("r"))


def test_checkpoints_sort_by_step() -> None:
    assert sorted([keys.checkpoint_prefix("r", 1000), keys.checkpoint_prefix("r", 999)])[0].endswith("00000999/")


@pytest.mark.parametrize("value", ["", "../../x", "A", "a_b", "-a", "a/b", "a.b", "a\n", "é", "x" * 64])
def test_bad_ids_are_rejected_with_their_field(value: str) -> None:
    with pytest.raises(InvalidArgument, match=r"run_id is .*allowed: 1 to 63") as caught:
        keys.run_spec(value)
    assert caught.value.violations[0][0] == "run_id"


def test_the_id_rule_is_the_protos_rule() -> None:
    field = dataset_pb2.GetDatasetRequest.DESCRIPTOR.fields[0]
    assert field.GetOptions().Extensions[rules_pb2.rules].pattern == keys.ID_PATTERN.pattern


@pytest.mark.parametrize("value", BAD_KEYS)
def test_bad_keys_are_rejected(value: str) -> None:
    assert not keys.is_key(value)
    with pytest.raises(InvalidArgument, match="Object key"):
        keys.check_key(value)
    with pytest.raises(InvalidArgument):
        keys.model_file("r", value)


@pytest.mark.parametrize("value", ["", "a", "a/", "a/b", "runs/r1/checkpoints/00", "blobs/0f/"])
def test_prefixes_may_end_anywhere(value: str) -> None:
    assert keys.check_prefix(value) == value


@pytest.mark.parametrize("value", ["/", "/a", "..", "../", "a//", "a/../", ".hidden", "a\0"])
def test_bad_prefixes_are_rejected(value: str) -> None:
    with pytest.raises(InvalidArgument, match="Prefix"):
        keys.check_prefix(value)


@pytest.mark.parametrize("sha256", ["", "abc", SHA.upper(), SHA + "\n", "../" + SHA])
def test_blobs_are_named_by_a_whole_hash(sha256: str) -> None:
    with pytest.raises(InvalidArgument, match="SHA-256"):
        keys.blob(sha256)


def test_steps_and_attempts_are_counted_from_their_first() -> None:
    with pytest.raises(InvalidArgument, match="step is -1"):
        keys.checkpoint_prefix("r", -1)
    with pytest.raises(InvalidArgument, match="attempt is 0"):
        keys.attempt_log("r", 0)


@given(st.text(max_size=40))
def test_whatever_is_a_key_stays_below_its_folder(value: str) -> None:
    if keys.is_key(value):
        assert re.fullmatch(r"[A-Za-z0-9_.=+\- /]+", value)
        assert all(part not in {"", ".", ".."} for part in value.split("/"))


def test_errors_stay_short() -> None:
    with pytest.raises(InvalidArgument) as caught:
        keys.check_key("/" * 100_000)
    assert len(caught.value.message) < 400
