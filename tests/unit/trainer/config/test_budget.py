"""Steps that grow with the number and the variety of labelled cells."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cellsparse_fake import light
from support.cellsparse_fake.config import resolve

from cellsparse_common.errors import InvalidArgument
from cellsparse_proto.v1 import trainer_pb2
from cellsparse_trainer.config.budget import VALIDATIONS, DataSummary, fit_to_data, growth, summarize
from cellsparse_trainer.contract import installed_backends
from cellsparse_trainer.training.resolution import grow

NONE = trainer_pb2.TrainingSettings()
COUNTS = st.lists(st.integers(0, 5000), max_size=60)


def plan(backend, **given):
    settings = trainer_pb2.TrainingSettings(**given)
    getattr(settings, backend).SetInParent()
    return installed_backends()[backend].light().resolve(settings, 441).plan, settings


def test_items_without_a_cell_do_not_count():
    assert summarize([3, 0, 1]) == DataSummary(images=2, cells=4, variety=3.0)
    assert growth(summarize([])) == 1
    with pytest.raises(ValueError, match="cells is -1; allowed: from 0"):
        DataSummary(images=1, cells=-1, variety=0)


@pytest.mark.parametrize(
    ("backend", "fewest", "most"), [("cellpose", 360, 1400), ("stardist", 450, 5000), ("unet", 250, 3600)]
)
def test_few_cells_get_the_fewest_steps_and_a_whole_data_set_the_most(backend, fewest, most):
    found, settings = plan(backend)
    assert (found.steps, found.most_steps) == (fewest, most)
    assert fit_to_data(found, settings, summarize([8, 8, 8])).steps == fewest
    assert fit_to_data(found, settings, summarize([300])).steps == fewest
    fitted = fit_to_data(found, settings, summarize([20] * 2000))
    assert fitted.steps == most
    assert f"{most} steps for 40000 labelled cells on 2000 images" in fitted.budget
    between = fit_to_data(found, settings, summarize([2] * 50))
    assert fewest < between.steps < most
    times = {"unet": 2.3}.get(backend, 1.8)
    assert f"{times} times those for few cells" in between.budget
    assert fit_to_data(found, settings, summarize([8, 8, 8])).validate_every == found.validate_every
    assert fitted.validate_every == -(-most // VALIDATIONS) > found.validate_every
    _, given_interval = plan(backend, validate_every_steps=7)
    found = replace(found, validate_every=7)
    assert fit_to_data(found, given_interval, summarize([20] * 2000)).validate_every == 7


@pytest.mark.parametrize("backend", installed_backends())
def test_given_steps_and_paper_are_not_changed(backend):
    data = summarize([20] * 441)
    found, settings = plan(backend, steps=77)
    assert fit_to_data(found, settings, data).steps == 77
    found, settings = plan(backend, preset=trainer_pb2.PRESET_PAPER)
    fitted = fit_to_data(found, settings, data)
    assert replace(fitted, budget="") == found
    assert fitted.budget == f"{found.steps} steps, the preset's."


@given(COUNTS, st.integers(0, 5000))
def test_more_cells_never_mean_fewer_steps(counts, more):
    found = replace(resolve(NONE, 1).plan, steps=200, most_steps=900)
    before, after = (fit_to_data(found, NONE, summarize(each)).steps for each in (counts, [*counts, more]))
    assert 200 <= before <= after <= 900


@given(COUNTS)
def test_the_budget_follows_from_the_counts_in_any_order(counts):
    assert summarize(counts) == summarize(sorted(counts))


class Wide:
    """A backend whose crops grow, too, up to a size that it refuses."""

    @staticmethod
    def grow(config, settings, data):
        if data.images > 99:
            raise ValueError("crop_size is 7; allowed: others.")
        return replace(config, plan=replace(config.plan, crop_size=64))

    resolve, adopt, Config = light.resolve, light.adopt, light.Config


def test_a_backend_may_let_crops_and_network_grow():
    config = resolve(NONE, 1)
    assert grow(light, config, NONE, summarize([4])).plan.crop_size == config.plan.crop_size
    assert grow(Wide(), config, NONE, summarize([4])).plan.crop_size == 64
    with pytest.raises(InvalidArgument, match="crop_size is 7"):
        grow(Wide(), config, NONE, summarize([4] * 100))
