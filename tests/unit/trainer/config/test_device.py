import pytest

from cellsparse_common.errors import InvalidArgument
from cellsparse_trainer.config.device import choose, missing_gpu


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
