import pytest

from cellsparse.enum_names import plain
from cellsparse.errors import InvalidArgument
from cellsparse.training_settings import backends, sparsify_settings, training_settings, usual_backends
from cellsparse_proto.v1 import sparsifier_pb2, trainer_pb2


def test_keywords_reach_common_and_own_settings():
    made = training_settings("stardist", {"steps": 100, "n_rays": "32", "learning_rate": "2e-3", "preset": "paper"})
    assert made.WhichOneof("backend") == "stardist"
    assert (made.steps, made.stardist.n_rays, made.learning_rate) == (100, 32, 2e-3)
    assert made.preset == trainer_pb2.PRESET_PAPER
    assert not made.HasField("batch_size")


def test_truths_lists_and_words_come_as_text_or_as_they_are():
    text = training_settings("unet", {"flip": "False", "class_weights": "1, 5,10", "schedule": "cosine"})
    assert text == training_settings("unet", {"flip": False, "class_weights": (1, 5, 10), "schedule": "COSINE"})
    assert text.unet.HasField("flip")
    assert list(text.unet.class_weights) == [1, 5, 10]


def test_a_backend_without_settings_is_still_chosen():
    assert training_settings("unet", {}).WhichOneof("backend") == "unet"


def test_every_backend_of_the_proto_is_offered():
    assert backends() == ["cellpose", "stardist", "unet", "cellpose_sam"]


def test_a_backend_that_needs_weights_is_taken_only_by_its_name():
    assert usual_backends() == ["cellpose", "stardist", "unet"]


@pytest.mark.parametrize(
    ("backend", "values", "said"),
    [
        ("stardist", {"rays": 3}, ["'rays'", "n_rays: 8 to 128", "steps: 1 to 10000000", "preset: fast|paper"]),
        ("unet", {"n_rays": 32}, ["'n_rays'", "base_channels: 4 to 128"]),
        ("mask2former", {}, ["'mask2former'", "cellpose, stardist, unet"]),
        ("unet", {"steps": 0}, ["steps", "0", "1 to 10000000"]),
        ("unet", {"steps": "many"}, ["'many'", "whole number"]),
        ("unet", {"steps": 2.5}, ["2.5"]),
        ("unet", {"steps": -1}, ["-1"]),
        ("unet", {"learning_rate": 0}, ["above 0 to 1"]),
        ("unet", {"learning_rate": "nan"}, ["nan"]),
        ("unet", {"preset": "slow"}, ["'slow'", "fast, paper"]),
        ("unet", {"seed": -1}, ["seed", "0 or more"]),
        ("unet", {"flip": "perhaps"}, ["flip", "'perhaps'", "true or false"]),
        ("unet", {"class_weights": "1,0,1"}, ["class_weights", "'0'", "above 0 to 1000, with commas"]),
        ("cellpose", {"cellpose.channels": "32,many"}, ["channels", "'many'", "whole number"]),
        ("cellpose", {"cellpose.channels": 0.5}, ["channels", "0.5"]),
        ("cellpose", {"channels": 0.5}, ["channels", "0.5", "numbers from 0 or names"]),
        ("unet", {"crop_size": 100}, ["crop_size", "100", "32 to 2048, multiples of 16"]),
        ("stardist", {"grid": 3}, ["grid", "3", "1, 2, 4"]),
    ],
)
def test_bad_settings_name_the_value_and_what_is_allowed(backend, values, said):
    with pytest.raises(InvalidArgument) as caught:
        training_settings(backend, values)
    for words in said:
        assert words in caught.value.message


def amounts(**given):
    base = {"mode": "minmax", "k": None, "background": "shifted", "distance": None, "total_cells": None}
    return sparsify_settings(**{**base, "percent": None, "seed": 0, **given})


def test_sparsify_settings():
    made = amounts(k=4, distance=7, background="RING")
    assert (made.mode, made.k) == (sparsifier_pb2.SELECTION_MODE_MINMAX, 4)
    assert (made.background, made.background_distance) == (sparsifier_pb2.BACKGROUND_RULE_RING, 7)
    assert amounts(percent=2.5).WhichOneof("amount") == "total_percent"


@pytest.mark.parametrize("given", [{}, {"k": 1, "percent": 2.0}, {"k": 0}, {"k": 4, "mode": "best"}, {"percent": 0.0}])
def test_bad_sparsify_settings(given):
    with pytest.raises(InvalidArgument):
        amounts(**given)


def test_plain_gives_values_that_json_knows():
    made = plain(training_settings("unet", {"steps": 3, "preset": "fast", "seed": 2**40}))
    unet = {"instance_method": "", "class_weights": [], "loss_shares": [], "target_shape": ""}
    assert made == {"preset": "fast", "seed": 2**40, "device": "", "schedule": "", "steps": 3, "unet": unet} | {
        "initial_model": "",
        "channels": [],
        "precision": "",
        "rate_scaling": "",
        "gradient_format": "",
    }
