from types import SimpleNamespace

import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_gateway.prompts.choose import Prompters


def stored(name, *, refused=False, ready=True):
    return SimpleNamespace(name=name, refused=refused, ready=lambda: ready)


def names(prompters):
    return [each.name for each in prompters]


def test_auto_asks_the_settings_else_the_newest_that_works():
    own, new, old = SimpleNamespace(name="onnx-sam"), stored("new"), stored("old")
    assert names(Prompters([own], lambda: [new]).asked("auto")) == ["onnx-sam"]
    assert names(Prompters([], lambda: [new, old]).asked("auto")) == ["new"]
    assert names(Prompters([], lambda: [stored("new", refused=True), old]).asked("auto")) == ["old"]
    assert Prompters([], lambda: [stored("new", ready=False), old]).asked("auto") == []
    assert Prompters().asked("auto") == []


def test_a_name_asks_that_one_whether_it_is_loaded_or_not():
    prompters = Prompters([], lambda: [stored("new", ready=False), stored("old", refused=True)])
    assert names(prompters.asked("old")) == ["old"]
    assert names(prompters.asked("onnx-sam")) == ["new"]
    assert prompters.asked("classical") == prompters.asked("model") == []
    assert names(prompters.all()) == ["model", "new", "old", "classical"]


def test_an_unknown_name_is_refused_with_those_there_are():
    with pytest.raises(InvalidArgument, match="no prompter 'magic' here; there are auto, model, mine, classical"):
        Prompters([], lambda: [stored("mine")]).asked("magic")
    with pytest.raises(InvalidArgument, match="no prompter 'onnx-sam' here; there are auto, model, classical"):
        Prompters().asked("onnx-sam")
