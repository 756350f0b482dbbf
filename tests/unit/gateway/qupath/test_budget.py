import pytest

from cellsparse_gateway.qupath import budget
from cellsparse_gateway.qupath.bodies import SegmentBody
from cellsparse_gateway.qupath.refusals import Refusal
from cellsparse_proto.v1 import common_pb2, orchestrator_pb2, trainer_pb2


def body(**fields) -> SegmentBody:
    return SegmentBody(modelname="default", b64img="", **fields)


def run(state=common_pb2.RUN_STATE_SUCCEEDED, *, step=100, total=100, seconds=50.0, steps=None, **fields):
    made = orchestrator_pb2.Run(state=state, attempts=1, settings=trainer_pb2.TrainingSettings(steps=steps), **fields)
    made.started_at.FromSeconds(1000)
    made.ended_at.FromNanoseconds(int((1000 + seconds) * 1e9))
    made.progress.step, made.progress.total_steps = step, total
    return made


@pytest.mark.parametrize("numbers", [(5, 8, 200), (1, 8, 200), (10, 8, 8)])
def test_the_extension_s_constants_mean_the_preset(numbers):
    epochs, batchsize, steps = numbers
    sent = body(epochs=epochs, batchsize=batchsize, steps=steps)
    assert not budget.has_own_length(sent)
    chosen = budget.settings(sent, "stardist", "model-1", None)
    expected = trainer_pb2.TrainingSettings(
        preset=trainer_pb2.PRESET_FAST, initial_model="model-1", stardist=trainer_pb2.StardistSettings()
    )
    assert chosen == expected


def test_numbers_of_a_client_s_own_are_honoured():
    chosen = budget.settings(body(epochs=3, steps=70, batchsize=4, trainpatch=96, lr=0.01), "unet", "", 55)
    assert (chosen.steps, chosen.batch_size, chosen.crop_size, chosen.learning_rate) == (210, 4, 96, 0.01)
    assert chosen.WhichOneof("backend") == "unet"


def test_steps_that_fit_are_used():
    assert budget.settings(body(), "unet", "", 55).steps == 55


def test_cellpose_s_channel_counts_from_1():
    assert budget.settings(body(), "cellpose", "", None).channels == ["mean"]
    assert budget.settings(body(chan1=2), "cellpose", "", None).channels == ["1"]
    assert budget.settings(body(chan1=1, chan2=3), "cellpose", "", None).channels == ["0", "2"]
    with pytest.raises(Refusal, match="chan2 is 3 while chan1 is 0"):
        budget.settings(body(chan2=3), "cellpose", "", None)


@pytest.mark.parametrize("fields", [{"batchsize": -1}, {"trainpatch": 2**40}])
def test_numbers_that_no_field_holds_are_refused(fields):
    with pytest.raises(Refusal, match="out of range"):
        budget.settings(body(**fields), "unet", "", None)


def test_without_earlier_runs_nothing_is_known():
    assert budget.fitting_steps([], 90) is None


def test_a_slow_machine_gets_as_many_steps_as_fit():
    assert budget.fitting_steps([run(seconds=300, total=100)], 90) == 30


def test_a_run_a_little_too_long_is_left_alone():
    assert budget.fitting_steps([run(seconds=120)], 90) is None


def test_the_newest_finished_run_tells_the_pace_and_a_free_one_the_steps():
    cut = run(steps=50, step=50, total=50, seconds=100)
    cancelled = run(common_pb2.RUN_STATE_CANCELLED, step=12, total=400)
    assert budget.fitting_steps([cut, cancelled], 90) == 45


def test_a_run_that_was_repeated_tells_no_pace():
    repeated = run(seconds=900)
    repeated.attempts = 2
    assert budget.fitting_steps([repeated], 90) is None


@pytest.mark.parametrize(
    ("step", "eta", "expected"),
    [(5, 1000.0, None), (20, 80.0, None), (20, 0.0, None), (20, 800.0, 9 * 100 // 10), (20, 80_000.0, 10)],
)
def test_a_run_that_takes_far_too_long_is_begun_anew(step, eta, expected):
    training = run(common_pb2.RUN_STATE_RUNNING, step=step, total=820)
    training.progress.eta_seconds = eta
    assert budget.fewer_steps(training, 10.0, 90.0) == expected


def test_a_run_that_does_not_train_is_not_cut():
    assert budget.fewer_steps(run(common_pb2.RUN_STATE_QUEUED, step=20, total=500), 10.0, 90.0) is None
