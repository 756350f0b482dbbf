"""Which device torch computes on, and in which number format."""

import os
import signal
import time

import pytest
import torch
from support.limits import PATIENCE

from cellsparse_common.errors import InvalidArgument
from cellsparse_torch import cpu_bfloat16
from cellsparse_torch.devices import choose_device, devices, half_precision, has_bfloat16, predicts_in_bfloat16


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


def test_the_cpu_is_listed_first():
    assert devices()[0] == "cpu"


@pytest.mark.parametrize("has", [False, True])
def test_a_cpu_trains_in_bfloat16_where_it_computes_in_it(monkeypatch, has):
    cpu = torch.device("cpu")
    monkeypatch.setattr("cellsparse_torch.devices.cpu_has_bfloat16", lambda: has)
    assert has_bfloat16("cpu") is has
    assert half_precision("auto", cpu) is has
    assert not half_precision("float32", cpu)
    if has:
        assert half_precision("bfloat16", cpu)
    else:
        with pytest.raises(InvalidArgument, match="precision is BFLOAT16, but this CPU does not compute in it"):
            half_precision("bfloat16", cpu)
    monkeypatch.setenv("CELLSPARSE_PRECISION", "float32")
    assert not half_precision("auto", cpu)


@pytest.mark.parametrize(
    ("trained", "has", "service", "predicts"),
    [
        ("bfloat16", True, "auto", True),
        ("auto", True, "auto", True),
        ("float32", True, "auto", False),
        ("bfloat16", False, "auto", False),
        ("bfloat16", True, "float32", False),
        ("auto", True, "float32", False),
    ],
)
def test_a_model_predicts_in_float32_where_it_was_trained_or_the_service_is_told_to(
    monkeypatch, trained, has, service, predicts
):
    monkeypatch.setattr("cellsparse_torch.devices.cpu_has_bfloat16", lambda: has)
    monkeypatch.setenv("CELLSPARSE_PRECISION", service)
    assert predicts_in_bfloat16(trained, torch.device("cpu")) is predicts
    assert not predicts_in_bfloat16(trained, torch.device("cuda"))  # GPUs predict in float32


@pytest.fixture
def claimed(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    cpu_bfloat16.cpu_has_bfloat16.cache_clear()
    yield monkeypatch
    cpu_bfloat16.cpu_has_bfloat16.cache_clear()


def test_a_cpu_that_claims_bfloat16_is_tried_out(claimed):
    assert cpu_bfloat16.cpu_has_bfloat16()  # any CPU gets it right, if slowly
    claimed.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "amx_bf16": False})
    cpu_bfloat16.cpu_has_bfloat16.cache_clear()
    assert not cpu_bfloat16.cpu_has_bfloat16()


@pytest.mark.parametrize("what", ["crashes", "is wrong", "raises", "hangs", "cannot be made"])
def test_a_claim_that_does_not_hold_is_not_believed(claimed, what):
    faults = {
        "crashes": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "is wrong": lambda: False,
        "raises": lambda: 1 / 0,
        "hangs": lambda: time.sleep(600),
        "cannot be made": lambda: True,
    }
    claimed.setattr(cpu_bfloat16, "_computes", faults[what])
    claimed.setattr(cpu_bfloat16, "_TRIAL_SECONDS", 0.2 if what == "hangs" else PATIENCE)
    if what == "cannot be made":
        claimed.setattr(os, "fork", no_memory)
    assert not cpu_bfloat16.cpu_has_bfloat16()


def no_memory():
    raise OSError("Cannot allocate memory")
