"""From a grid to its members, as pure functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellsparse_common.errors import InvalidArgument
from cellsparse_orchestrator.studies.grid import expand, fill, varied
from cellsparse_orchestrator.studies.label_sets import label_set_id, label_set_name, sparsify_settings
from cellsparse_orchestrator.studies.member_settings import member_settings
from cellsparse_proto.v1 import sparsifier_pb2, study_pb2, trainer_pb2

BACKENDS = ["cellpose", "stardist", "unet"]


def distinct(values, most):
    return st.lists(values, unique=True, min_size=1, max_size=most)


@st.composite
def grids(draw):
    grid = study_pb2.StudyGrid(
        modes=draw(distinct(st.integers(1, 4), 4)),
        backgrounds=draw(distinct(st.integers(1, 4), 3)),
        k=draw(distinct(st.integers(0, 300), 4)),
        backends=draw(distinct(st.sampled_from(BACKENDS), 3)),
        seeds=draw(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=3)),
    )
    for name, values in draw(
        st.dictionaries(
            st.sampled_from(["steps", "batch_size", f"{grid.backends[0]}.crop_size"]),
            distinct(st.sampled_from(["32", "64", "96"]), 3),
        )
    ).items():
        grid.settings.add(name=name, values=values)
    return grid


def label_set(point):
    return label_set_id("ds-1", sparsify_settings(point.labels, point.seed))


@given(grids())
def test_every_combination_is_a_member_once(grid):
    filled = fill(grid)
    points = expand(filled)
    keys = {(p.labels, p.backend, p.seed, tuple(p.settings.items())) for p in points}
    assert len(keys) == len(points)
    expected = 0
    for backend in filled.backends:
        product = len(filled.modes) * len(filled.backgrounds) * len(filled.k) * len(filled.seeds)
        for axis in filled.settings:
            product *= len(axis.values) if axis.name.partition(".")[0] in (axis.name, backend) else 1
        expected += product
    assert len(points) == expected
    assert fill(filled) == filled
    assert expand(filled) == points


@given(grids())
def test_equal_labels_are_one_label_set_and_others_are_not(grid):
    asked = {}
    for point in expand(fill(grid)):
        settings = sparsify_settings(point.labels, point.seed)
        asked.setdefault(label_set(point), settings)
        assert asked[label_set(point)] == settings
    assert len({settings.SerializeToString(deterministic=True) for settings in asked.values()}) == len(asked)
    for point in expand(fill(grid)):
        settings = asked[label_set(point)]
        assert settings.background == point.labels.background
        assert (settings.k == point.labels.k and settings.mode == point.labels.mode) or not point.labels.k
        # A seed chooses cells only where they are drawn at random.
        assert settings.seed == (point.seed if settings.mode == sparsifier_pb2.SELECTION_MODE_RANDOM else 0)


def test_the_papers_grid_has_108_members_of_32_label_sets():
    points = expand(fill(study_pb2.StudyGrid(preset=study_pb2.STUDY_PRESET_PAPER)))
    assert len(points) == 108
    assert len({(p.labels.mode, p.labels.background, p.labels.k) for p in points}) == 36
    assert len({label_set(point) for point in points}) == 32  # where all cells are kept, the mode keeps the same ones
    assert {point.labels.k for point in points} == {1, 4, 16, 64, 256, 0}


def test_a_given_axis_replaces_the_presets():
    points = expand(fill(study_pb2.StudyGrid(preset=study_pb2.STUDY_PRESET_PAPER, backends=["unet"], k=[4, 0])))
    assert len(points) == 3 * 2 * 2
    assert {point.backend for point in points} == {"unet"}


def test_without_label_axes_the_datasets_own_labels_are_trained_on():
    points = expand(fill(study_pb2.StudyGrid(backends=["unet"], seeds=[1, 2])))
    assert [(point.labels, point.seed) for point in points] == [(None, 1), (None, 2)]


def test_a_setting_of_one_backend_multiplies_its_members_only():
    axes = [study_pb2.StudyAxis(name="n_rays", values=["16", "32"]), study_pb2.StudyAxis(name="steps", values=["9"])]
    grid = fill(study_pb2.StudyGrid(backends=["stardist", "unet"], settings=axes))
    assert [(p.backend, p.settings) for p in expand(grid)] == [
        ("stardist", {"n_rays": "16", "steps": "9"}),
        ("stardist", {"n_rays": "32", "steps": "9"}),
        ("unet", {"steps": "9"}),
    ]
    assert varied(grid) == ["n_rays"]


def test_distance_belongs_to_backgrounds_that_have_one():
    grid = study_pb2.StudyGrid(modes=[1], backgrounds=[1, 2], k=[3], backends=["unet"], background_distance=5)
    none, shifted = (sparsify_settings(point.labels, 0) for point in expand(fill(grid)))
    assert not none.HasField("background_distance")
    assert shifted.background_distance == 5


def test_label_sets_have_names_for_people():
    few = sparsifier_pb2.SparsifySettings(mode=3, k=4, background=2)
    every = sparsifier_pb2.SparsifySettings(mode=3, k=65535, background=1)
    assert label_set_name("nuclei", few) == "nuclei minmax k4 shifted"
    assert label_set_name("nuclei", every) == "nuclei all cells none"
    assert len(label_set_name("n" * 100, every)) == 100


GOOD = {
    "steps": ("7", lambda settings: settings.steps == 7),
    "preset": ("paper", lambda settings: settings.preset == trainer_pb2.PRESET_PAPER),
    "learning_rate": ("1e-3", lambda settings: settings.learning_rate == 0.001),
    "flip": ("TRUE", lambda settings: settings.unet.flip is True),
    "class_weights": ("1, 2,3", lambda settings: list(settings.unet.class_weights) == [1, 2, 3]),
    "instance_method": ("watershed", lambda settings: settings.unet.instance_method == 3),
    "initial_model": ("run-1", lambda settings: settings.initial_model == "run-1"),
}


@pytest.mark.parametrize("name", GOOD)
def test_text_becomes_a_setting(name):
    text, holds = GOOD[name]
    settings = member_settings("unet", 3, {name: text})
    assert holds(settings)
    assert settings.seed == 3
    assert settings.WhichOneof("backend") == "unet"


def test_the_setting_of_one_backend_goes_before_the_common_one():
    assert member_settings("unet", 0, {"unet.steps": "7", "steps": "5"}).steps == 7


BAD = {
    "steps": ["0", "5.5", "", "five"],
    "learning_rate": ["nan", "inf", "0", "x"],
    "flip": ["yes"],
    "preset": ["slow"],
    "class_weights": ["1,x"],
    "n_rays": ["32"],
    "stardist.steps": ["3"],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in BAD for text in BAD[name]])
def test_what_is_no_setting_is_refused_by_name(name, text):
    with pytest.raises(InvalidArgument) as caught:
        member_settings("unet", 0, {name: text})
    assert name.rpartition(".")[2] in caught.value.message
