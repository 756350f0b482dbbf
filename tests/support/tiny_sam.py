"""A tiny Segment Anything model in ONNX: random weights behind the input and output names of the real one."""

import hashlib
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cellsparse_gateway.prompts.onnx_sam import DECODER_INPUTS
from cellsparse_proto.v1 import prompter_pb2

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


def sha256(data: bytes) -> str:
    """The SHA-256 of a file, hex."""
    return hashlib.sha256(data).hexdigest()


def prompter_messages(name: str, pair: tuple[bytes, bytes], **changed) -> Iterator[prompter_pb2.AddPrompterRequest]:
    """The stream of an upload."""
    request = prompter_pb2.AddPrompterRequest
    header = {"licence": "MIT", "encoder_sha256": sha256(pair[0]), "decoder_sha256": sha256(pair[1])}
    yield request(header=prompter_pb2.AddPrompterHeader(name=name, **{**header, **changed}))
    for part, data in zip(("encoder", "decoder"), pair, strict=True):
        for begin in range(0, len(data), 2**20):
            yield request(**{part: data[begin : begin + 2**20]})
    yield request(end=prompter_pb2.AddPrompterEnd(encoder_size=len(pair[0]), decoder_size=len(pair[1])))
