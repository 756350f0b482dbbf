"""All trainers carry the same file names: who knows one finds the way in all."""

import dataclasses
import importlib
import inspect
import json

import pytest
from support.paths import ROOT

from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.backend_config import BackendConfig, ModelConfig

BACKENDS = ("cellpose", "cellpose_sam", "stardist", "unet")
COMMON = {
    "__init__",
    "__main__",
    "backend",
    "config",
    "crops",
    "data",
    "export",
    "importing",
    "initial_model",
    "instances",
    "light",
    "loss",
    "model",
    "network",
    "step",
    "targets",
    "tiles",
}
SHARED = {"cellpose": {"crops", "loss"}, "cellpose_sam": {"crops", "loss"}}
"""What stands in cellsparse_torch.flows, because both Cellposes need it."""
EXTRA = {
    "cellpose": {
        "training_network": "the library's network, trained with less arithmetic; others build their own",
        "inference": "batch norms and the style fold into convolutions; other networks have none that are worth it",
        "windows": "flows of a large image are followed in parts; the others have no dynamics",
    },
    "cellpose_sam": {
        "trainable": "what is trained is a choice: readout, low-rank updates or all; the others train all",
    },
    "stardist": {
        "cpu_bfloat16": "TensorFlow's detection and rewriting of the graph; torch's is in cellsparse_torch",
        "data_parallel": "TensorFlow's process group; torch's is in cellsparse_torch",
        "flips": "the network's grid points and rays have mirror images of their own; the U-Net's are pixels",
        "framework": "Keras 2 must be chosen before TensorFlow is loaded, in one place",
        "ray_averages": "all grid points of a cell decide where its outline is; others do not predict outlines",
        "star_scores": "the library gives probabilities of stars, and not every star becomes a cell",
        "spacing": "trains on whole stacks: anisotropy of cells; Cellpose trains on planes",
    },
    "unet": {
        "ellipses": "targets and one way of finding instances draw cells as ellipses",
        "spacing": "trains on whole stacks: distance of planes; Cellpose trains on planes",
        "tuning": "two thresholds and two ways of finding instances depend on each other; others choose one threshold",
        "tiled_network": "group normalisation sees the whole image, so tiles go through the network block by block",
    },
}
"""What one backend has of its own, and why."""


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_files(backend):
    folder = ROOT / "services" / f"trainer_{backend}" / f"cellsparse_{backend}"
    found = {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.py")}
    assert found == COMMON - SHARED.get(backend, set()) | EXTRA[backend].keys()


@pytest.mark.parametrize("backend", BACKENDS)
def test_settings_have_the_same_shape(backend):
    config = importlib.import_module(f"cellsparse_{backend}.config")
    settings = trainer_pb2.TrainingSettings(preset=trainer_pb2.PRESET_PAPER, seed=3)
    resolved = config.resolve(settings, 5)
    assert isinstance(resolved, BackendConfig)
    assert config.Config.from_json(resolved.to_json()) == resolved
    assert list(inspect.signature(config.resolve).parameters) == ["settings", "items", "stacks"]
    assert resolved.RANGES.keys() | resolved.CHOICES.keys() <= {field.name for field in dataclasses.fields(resolved)}
    assert "likely_background" in resolved.RANGES


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_models_config_is_read_once_and_adopted(backend):
    config = importlib.import_module(f"cellsparse_{backend}.config")
    adopt = importlib.import_module(f"cellsparse_{backend}.initial_model").adopt
    settings = trainer_pb2.TrainingSettings()
    resolved = config.resolve(settings, 5)
    text = ModelConfig(config=resolved.to_dict(), fitted={}).to_json()
    assert json.loads(text).keys() == {"config", "fitted"}
    assert adopt(resolved, settings, text) == resolved
    with pytest.raises(ValueError, match="lacks one of the objects config and fitted"):
        adopt(resolved, settings, json.dumps({"config": resolved.to_dict()}))
