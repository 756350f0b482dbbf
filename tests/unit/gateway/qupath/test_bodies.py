import json

import pytest

from cellsparse_gateway.qupath.bodies import ResetBody, SegmentBody, read_body
from cellsparse_gateway.qupath.refusals import Refusal

EXTENSION = {
    "modelname": "default",
    "b64img": "AAAA",
    "b64lbl": "BBBB",
    "train": True,
    "eval": True,
    "epochs": 5,
    "batchsize": 8,
    "steps": 200,
}


def test_what_the_extension_sends_is_read():
    assert read_body(SegmentBody, json.dumps(EXTENSION).encode()).model_dump() == {
        **EXTENSION,
        "trainpatch": 224,
        "lr": 0.001,
        "minarea": 10.0,
        "simplify_tol": None,
        "chan1": 0,
        "chan2": 0,
        "n_channels_in": 1,
    }


def test_defaults_are_those_of_the_old_server():
    body = read_body(SegmentBody, b'{"modelname": "default", "b64img": ""}')
    assert (body.b64lbl, body.train, body.eval, body.epochs, body.batchsize, body.steps) == (
        None,
        False,
        False,
        1,
        8,
        200,
    )


def test_unknown_fields_are_ignored():
    assert read_body(ResetBody, b'{"modelname": "default", "more": 1}').pretrained is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"\xff", "body"),
        (b'{"b64img": ""}', "modelname"),
        (b'{"modelname": "", "b64img": ""}', "modelname"),
        (b'{"modelname": "a"}', "b64img"),
        (b'{"modelname": "a", "b64img": "", "epochs": 0}', "epochs"),
        (b'{"modelname": "a", "b64img": "", "minarea": -1}', "minarea"),
    ],
)
def test_a_bad_body_is_refused_with_the_field_s_name(text, field):
    with pytest.raises(Refusal) as caught:
        read_body(SegmentBody, text)
    assert caught.value.status == 422
    assert field in caught.value.sentence
