"""Networks in files: state dicts that somebody sends, and networks written for other tools."""

import contextlib
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cellsparse_common.errors import InvalidArgument, ResourceExhausted
from cellsparse_trainer.models.shapes import check_shapes

_OPSET = 17
_PICKLES = 5
"""A file that is no zip begins with so many pickles."""
_MOST_STEPS = 300_000
"""Steps of unpickling; an array takes about 30."""
_FIXED_ANSWER = "Converting a tensor to a Python boolean"
"""What the tracer warns of where group normalisation asks whether it has a single value."""


def find_state(source: Path, name: str) -> Path:
    """Return the file of a state dict: the upload itself, or the file of this name in the unpacked folder.

    Raises:
        InvalidArgument: The folder holds no such file.
    """
    if source.is_file():
        return source
    found = sorted(source.rglob(name))
    if not found:
        raise InvalidArgument(f"The zip holds no file {name}; send the file itself.", "file")
    return found[0]


def read_state(path: Path, network: str, *, in_list: bool = False) -> dict[str, Tensor]:
    """Return a state dict; nothing but arrays is ever unpickled.

    Args:
        path: A file that is not to be trusted.
        network: What the network is called in errors, such as "Cellpose 3 model".
        in_list: Whether the tool may keep it in a list, as the members of an ensemble; only a list of one is allowed.

    Raises:
        InvalidArgument: The file is damaged, or holds something else.
        ResourceExhausted: It holds far more arrays than a network has.
    """
    _check_count(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes PyTorch raise
        raise InvalidArgument(
            "The file is no PyTorch file of weights alone: it is damaged, of another kind, or holds objects or code, "
            "which are never loaded.",
            "file",
        ) from error
    if in_list and isinstance(state, list):
        if len(state) != 1:
            raise InvalidArgument(f"The file holds an ensemble of {len(state)} networks; allowed: one.", "file")
        state = state[0]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidArgument(f"The file is no {network}: it holds no state dict of named arrays.", "file")
    return {str(name): value for name, value in state.items()}


def _check_count(path: Path) -> None:
    """Refuse a file of very many arrays, which take long to build even where they are empty; nothing is unpickled."""
    steps = 0
    # What is damaged is refused by PyTorch.
    with contextlib.suppress(ValueError, OSError, zipfile.BadZipFile, StopIteration), _pickle_of(path) as file:
        for _ in range(_PICKLES):
            for _ in pickletools.genops(file):
                steps += 1
                if steps > _MOST_STEPS:
                    raise ResourceExhausted(
                        f"The file takes more than {_MOST_STEPS:,} steps to build its arrays; a network has a few "
                        "thousand arrays at most.",
                        "file",
                    )


def _pickle_of(path: Path) -> IO[bytes]:
    """Open the part of a PyTorch file that says which arrays it holds."""
    if not zipfile.is_zipfile(path):
        return path.open("rb")
    archive = zipfile.ZipFile(path)  # closed with its member
    return archive.open(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def load_checked(network: nn.Module, state: Mapping[str, Tensor], name: str, *, assign: bool = False) -> None:
    """Load a state dict into a network.

    Args:
        network: Changed in place.
        state: Arrays by name.
        name: What the network is called in errors.
        assign: Whether the arrays become the network's own, as one on the meta device needs it; else they are copied.

    Raises:
        InvalidArgument: Names or shapes are not the network's, or a weight is not finite.
    """
    check_shapes(_shapes(network.state_dict()), _shapes(state), name)
    network.load_state_dict(state, assign=assign)
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise InvalidArgument("The file holds weights that are not finite.", "file")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def write_state(network: nn.Module, path: Path) -> None:
    """Write a network's state dict: contiguous arrays of their own, on the CPU."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    torch.save(state, path)


def example_images(channels: int, *lengths: int) -> Tensor:
    """Return two images of noise, (2, channels, *lengths), to trace a network with.

    Lengths should differ from axis to axis, so that the trace takes none of them for fixed.
    """
    return torch.rand(2, channels, *lengths, generator=torch.Generator().manual_seed(0))


def trace(network: nn.Module, example: Tensor) -> Any:
    """Return a network as TorchScript."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", _FIXED_ANSWER)
        return torch.jit.trace(network, example)  # type: ignore[no-untyped-call]


def write_torchscript(network: nn.Module, example: Tensor, path: Path) -> Callable[..., npt.NDArray[np.float32]]:
    """Write a network as TorchScript, and return a function that runs what was written on an array (B, C, ...)."""
    traced = trace(network, example)
    torch.jit.save(traced, path)  # type: ignore[no-untyped-call]

    def run(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            output: npt.NDArray[np.float32] = traced(torch.from_numpy(image)).numpy()
        return output

    return run


def write_onnx(network: nn.Module, example: Tensor, path: Path) -> None:
    """Write a network as ONNX, with any batch, height, width, and depth of stacks."""
    free = {0: "batch", **dict(enumerate("zyx"[2 - example.ndim :], 2))}
    with warnings.catch_warnings():
        # PyTorch's newer exporter fixes sizes that this one leaves open.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", _FIXED_ANSWER)
        torch.onnx.export(
            network,
            (example,),
            path,
            input_names=["image"],
            output_names=["output"],
            dynamic_axes={"image": free, "output": free},
            opset_version=_OPSET,
            dynamo=False,
        )
