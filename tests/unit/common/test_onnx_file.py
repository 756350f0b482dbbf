import time

import onnx
import pytest
from support.limits import QUICK
from support.tiny_sam import decoder, encoder

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.onnx_file import check_onnx


@pytest.fixture
def check(tmp_path):
    def checked(data, name="the file"):
        path = tmp_path / "file"
        path.write_bytes(data)
        check_onnx(path, name)

    return checked


def test_models_are_taken(check):
    for data in (encoder(prepares=True), encoder(prepares=False), decoder()):
        check(data)


@pytest.mark.parametrize("beginning", [b"PK\x03\x04", b"\x80\x02}q\x00.", b"\x80\x05\x95"])
def test_pickles_and_zips_are_refused_with_the_way_out(check, beginning):
    with pytest.raises(InvalidArgument, match=r"the file is a PyTorch, pickle or zip file.*samexporter"):
        check(beginning + decoder())


def test_an_ending_counts_too(check):
    with pytest.raises(InvalidArgument, match=r"https://x/sam\.PTH is a PyTorch"):
        check(decoder(), "https://x/sam.PTH")


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", b"\x08\x09", decoder()[:-1], decoder() + b"\x07", b"\xff" * 100, b"\x08\x09\x3a\x00", b"<html>"],
)
def test_what_lacks_the_structure_is_refused(check, data):
    with pytest.raises(InvalidArgument, match="is no ONNX file"):
        check(data)


def test_weights_in_other_files_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    model = onnx.load_model_from_string(encoder(prepares=False))
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    with pytest.raises(InvalidArgument, match="keeps its weights in other files"):
        check_onnx(path, "the file")


def test_a_forged_file_of_many_fields_takes_no_time(check):
    begin = time.monotonic()
    with pytest.raises(InvalidArgument, match="is no ONNX file"):
        check(b"\x08\x01" * 5_000_000)
    assert time.monotonic() - begin < QUICK
