import os

from cellsparse.demo import pipeline

NAMES = ("CELLSPARSE_SLOTS", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def shared(monkeypatch, cores, models=3, gpu=False, **given):
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that what the demo sets is undone
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(pipeline, "usable_cpus", lambda: cores)
    monkeypatch.setattr(pipeline, "GPU_DEVICE", pipeline.Path("/" if gpu else "/no/such/device"))
    pipeline._share_cores(models)
    return tuple(os.environ.get(name) for name in NAMES)


def test_all_models_train_at_once_on_their_shares_of_the_cores(monkeypatch):
    assert shared(monkeypatch, 2) == ("3", "1", "1", "1")
    assert shared(monkeypatch, 16) == ("3", "5", "5", "5")


def test_one_core_and_a_gpu_train_one_after_the_other(monkeypatch):
    assert shared(monkeypatch, 1) == (None,) * 4
    assert shared(monkeypatch, 16, gpu=True) == (None,) * 4


def test_what_the_environment_says_stays(monkeypatch):
    assert shared(monkeypatch, 2, CELLSPARSE_SLOTS="1", OMP_NUM_THREADS="2") == ("1", "2", "1", "1")
