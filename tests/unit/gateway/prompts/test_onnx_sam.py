import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.prompts.onnx_sam import DECODER_INPUTS, EMBEDDINGS, OnnxSam, read_onnx
from cellsparse_gateway.prompts.types import Box, Point, Prompt, best

FLOAT = TensorProto.FLOAT


def encoder(*, prepares: bool, outputs: str = "image_embeddings") -> bytes:
    """Return a tiny encoder: colours averaged over patches and mixed at random into 8 channels of 64 x 64."""
    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.normal(size=(8, 3, 16, 16)).astype(np.float32) / 256, "weights")
    if prepares:
        given = helper.make_tensor_value_info("input_image", FLOAT, ["height", "width", 3])
        sizes = numpy_helper.from_array(np.array([1, 3, 1024, 1024], np.int64), "sizes")
        nodes = [
            helper.make_node("Transpose", ["input_image"], ["chw"], perm=[2, 0, 1]),
            helper.make_node("Unsqueeze", ["chw", "first"], ["nchw"]),
            helper.make_node("Resize", ["nchw", "", "", "sizes"], ["x"], mode="nearest"),
        ]
        constants = [weights, sizes, numpy_helper.from_array(np.array([0], np.int64), "first")]
    else:
        given = helper.make_tensor_value_info("x", FLOAT, [1, 3, 1024, 1024])
        nodes, constants = [], [weights]
    nodes.append(helper.make_node("Conv", ["x", "weights"], [outputs], strides=[16, 16]))
    made = helper.make_tensor_value_info(outputs, FLOAT, [1, 8, 64, 64])
    return _model(nodes, [given], [made], constants)


def decoder(*, low: bool = True, without: str = "", broken: bool = False) -> bytes:
    """Return a tiny decoder: three logits that are positive in squares of three sizes around the first point."""
    names = sorted(DECODER_INPUTS - {without})
    shapes = {
        "image_embeddings": [1, 8, 64, 64],
        "point_coords": [1, "n", 2],
        "point_labels": [1, "n"],
        "mask_input": [1, 1, 256, 256],
        "has_mask_input": [1],
        "orig_im_size": [2],
    }
    side = 256 if low else 32
    grid = (np.stack(np.meshgrid(np.arange(side), np.arange(side))) + 0.5).astype(np.float32)[None] * (1024 / side)
    constants = [
        numpy_helper.from_array(grid, "grid"),
        numpy_helper.from_array(np.array([200, 100, 300], np.float32).reshape(1, 3, 1, 1), "radii"),
        numpy_helper.from_array(np.array([[0.7, 0.9, np.nan if broken else 0.2]], np.float32), "quality"),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([1, 2, 1, 1], np.int64), "shape"),
    ]
    output = "low_res_masks" if low else "masks"
    nodes = [
        helper.make_node("Slice", ["point_coords", "zero", "one", "one"], ["point"]),
        helper.make_node("Reshape", ["point", "shape"], ["middle"]),
        helper.make_node("Sub", ["grid", "middle"], ["offset"]),
        helper.make_node("Abs", ["offset"], ["distance"]),
        helper.make_node("ReduceMax", ["distance", "one"], ["farthest"], keepdims=1),
        helper.make_node("Sub", ["radii", "farthest"], [output]),
        helper.make_node("Identity", ["quality"], ["iou_predictions"]),
    ]
    inputs = [helper.make_tensor_value_info(name, FLOAT, shapes[name]) for name in names]
    outputs = [
        helper.make_tensor_value_info(output, FLOAT, [1, 3, side, side]),
        helper.make_tensor_value_info("iou_predictions", FLOAT, [1, 3]),
    ]
    return _model(nodes, inputs, outputs, constants)


def _model(nodes, inputs, outputs, constants) -> bytes:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model.SerializeToString()


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
