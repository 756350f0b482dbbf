import os
import subprocess
import sys

import numpy as np
import pytest
from support.limits import PATIENCE
from support.paths import ROOT
from support.tiny_sam import decoder, encoder

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.prompts.onnx_sam import EMBEDDINGS, OnnxSam, read_onnx
from cellsparse_gateway.prompts.types import Box, Point, Prompt, best


@pytest.mark.parametrize("low", [True, False])
@pytest.mark.parametrize("prepares", [True, False])
def test_a_pair_in_the_official_shape_proposes_around_the_click(low, prepares):
    prompter = OnnxSam(encoder(prepares=prepares), decoder(low=low), "test licence")
    image = np.random.default_rng(1).integers(0, 4000, (96, 128)).astype(np.uint16)
    found = prompter.propose(Prompt(image=image, points=(Point(x=64.5, y=48.5),)))
    assert best(found) == 0
    if low:
        # The surest has half a side of 100 of 1024 pixels, here 12.5 of 128.
        assert found[0].mask.shape == (25, 25)
        assert (found[0].x, found[0].y) == (52, 36)
        assert [proposal.mask.shape[1] for proposal in found] == [25, 49, 75]
        assert [round(proposal.quality, 3) for proposal in found] == [0.9, 0.7, 0.2]
    else:
        # This graph ignores the image's shape, so that its smallest square misses the click.
        assert [round(proposal.quality, 3) for proposal in found] == [0.7, 0.2]
    assert prompter.licence == "test licence"


def test_constraints_hold_whatever_the_graph_says():
    prompter = OnnxSam(encoder(prepares=True), decoder(), "x")
    image = np.zeros((100, 100, 3), np.uint8)
    found = prompter.propose(Prompt(image=image, points=(Point(x=50, y=50), Point(x=55, y=50, positive=False))))
    for proposal in found:
        assert not proposal.mask[50 - proposal.y, 55 - proposal.x : 56 - proposal.x].any()
    found = prompter.propose(Prompt(image=image, box=Box(left=40, top=40, right=60, bottom=60)))
    for proposal in found:
        assert proposal.x >= 40
        assert proposal.x + proposal.mask.shape[1] <= 60
    (nothing,) = prompter.propose(Prompt(image=image))
    assert not nothing.mask.size


def test_the_embedding_of_a_window_is_made_once():
    prompter = OnnxSam(encoder(prepares=False), decoder(), "x")
    run, calls = prompter._encoder.run, []

    class Counting:
        def run(self, *arguments):
            calls.append(1)
            return run(*arguments)

    prompter._encoder = Counting()
    images = [np.random.default_rng(seed).integers(0, 255, (40, 40)).astype(np.uint8) for seed in range(EMBEDDINGS + 1)]
    for x in (5, 10, 20):
        prompter.propose(Prompt(image=images[0], points=(Point(x=x, y=5),)))
    assert len(calls) == 1
    for image in images[1:]:
        prompter.propose(Prompt(image=image, points=(Point(x=5, y=5),)))
    assert len(prompter._embeddings) == EMBEDDINGS
    prompter.propose(Prompt(image=images[0], points=(Point(x=5, y=5),)))
    assert len(calls) == EMBEDDINGS + 2


def test_a_model_that_fails_on_an_image_says_so():
    prompter = OnnxSam(encoder(prepares=True), decoder(), "x")

    class Broken:
        def run(self, *_):
            raise RuntimeError("out of memory")

    prompter._encoder = Broken()
    with pytest.raises(InvalidArgument, match="The model fails on 30 x 20 pixels: out of memory"):
        prompter.propose(Prompt(image=np.zeros((20, 30), np.uint8), points=(Point(x=5, y=5),)))


@pytest.mark.parametrize(
    ("pair", "sentence"),
    [
        ((b"junk", decoder()), "The encoder is no model that ONNX Runtime can run"),
        ((encoder(prepares=True), encoder(prepares=True)), "The decoder has no input has_mask_input"),
        ((encoder(prepares=True), decoder(broken=True)), "gave values that are no masks"),
        ((decoder(), decoder()), "do not work together"),
    ],
)
def test_other_graphs_are_refused_by_the_self_test(pair, sentence):
    with pytest.raises(InvalidArgument, match=sentence):
        OnnxSam(*pair, "x")


@pytest.mark.parametrize(
    ("name", "data"), [("sam.pth", b"x"), ("sam.onnx", b"PK\x03\x04"), ("sam.onnx", b"\x80\x02}q\x00"), ("sam.pt", b"")]
)
def test_pickles_are_refused_with_the_way_out(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InvalidArgument, match="export it to ONNX with samexporter"):
        read_onnx(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidArgument, match=r"none\.onnx cannot be read"):
        read_onnx(tmp_path / "none.onnx")


def test_onnx_runtime_keeps_no_record_of_what_it_runs(tmp_path):
    """ONNX Runtime notes it in the home folder, to be sent to its maker, unless it is told not to."""
    code = """
from support.tiny_sam import decoder, encoder
from cellsparse_gateway.prompts.onnx_sam import OnnxSam
OnnxSam(encoder(prepares=True), decoder(), "MIT")
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT / "tests")}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=PATIENCE)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
