"""Most of these tests need Cellpose 4, which only the trainer's own environment has: `make test-cellpose-sam`."""

import importlib.util
from pathlib import Path

import pytest

WITHOUT_FRAMEWORK = ("test_config.py",)
# Cellpose 3, which stands in the other environment, has no module `vit`.
_FITS = importlib.util.find_spec("cellpose") is not None and importlib.util.find_spec("cellpose.vit") is not None
_HERE = Path(__file__).parent
collect_ignore = [] if _FITS else [each.name for each in _HERE.glob("test_*.py") if each.name not in WITHOUT_FRAMEWORK]


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small only lose by threads."""
    if not _FITS:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
