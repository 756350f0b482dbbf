"""Which device torch computes on: one sentence for each fault."""

import pytest
import torch

from cellsparse_common.errors import InvalidArgument
from cellsparse_torch.devices import choose_device, devices, half_precision


def test_a_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(InvalidArgument, match="no CUDA GPU") as caught:
        choose_device("cuda")
    assert [field for field, _ in caught.value.violations] == ["settings.device"]
    with pytest.raises(InvalidArgument, match="allowed: auto, cpu, cuda"):
        choose_device("tpu")


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


def test_the_cpu_is_listed_first_and_computes_in_float32():
    assert devices()[0] == "cpu"
    assert not half_precision("auto", torch.device("cpu"))
    with pytest.raises(InvalidArgument, match="precision is BFLOAT16"):
        half_precision("bfloat16", torch.device("cpu"))
