import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.config.device import check_switches, choose, missing_gpu
from cellsparse_trainer.config.plan import GPU_SWITCHES, Plan


@pytest.mark.parametrize(
    ("device", "found", "chosen"),
    [
        ("auto", ["cpu"], "cpu"),
        ("auto", ["cpu", "cuda:0 NVIDIA A100"], "cuda"),
        ("cpu", ["cpu", "cuda:0 NVIDIA A100"], "cpu"),
        ("cuda", ["cpu", "cuda:0 NVIDIA A100"], "cuda"),
    ],
)
def test_a_training_takes_the_gpu_unless_it_asks_for_the_cpu(device, found, chosen):
    assert choose(device, found) == chosen


def test_cuda_without_a_gpu_is_refused_with_the_one_sentence():
    with pytest.raises(InvalidArgument, match="finds no CUDA GPU; use AUTO or CPU") as caught:
        choose("cuda", ["cpu"])
    assert caught.value.message == missing_gpu().message
    assert [field for field, _ in caught.value.violations] == ["settings.device"]


def plan(**changes):
    sizes = {"steps": 1, "batch_size": 1, "crop_size": 32, "validate_every": 1, "checkpoint_every": 1}
    rates = {"learning_rate": 0.1, "weight_decay": 0.0, "lower_percentile": 0.0, "upper_percentile": 100.0}
    return Plan(**sizes, **rates, channel=None, seed=1, device="auto", **changes)


@pytest.mark.parametrize("name", GPU_SWITCHES)
def test_a_switch_for_gpus_is_refused_on_the_cpu(name):
    switched_on = plan(**{name: True})
    check_switches(switched_on, "cuda")
    check_switches(plan(), "cpu")
    with pytest.raises(InvalidArgument, match=f"{name} is true, but this training runs on the CPU") as caught:
        check_switches(switched_on, "cpu")
    assert [field for field, _ in caught.value.violations] == [f"settings.{name}"]


def test_a_step_is_compiled_in_one_process_only():
    with pytest.raises(ValueError, match="compile_step is true with 2 processes; allowed: with one process"):
        plan(compile_step=True, processes_per_node=2)
