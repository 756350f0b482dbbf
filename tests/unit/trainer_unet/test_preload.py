"""What a fork server loads is all that a training imports before its first step."""

import subprocess
import sys

from cellsparse_unet import BACKEND

CHILD = f"""
import sys
import {BACKEND.preload}
import torch
before = set(sys.modules)
torch.optim.AdamW(torch.nn.Linear(1, 1).parameters(), fused=True)
assert not set(sys.modules) - before, sorted(set(sys.modules) - before)
"""


def test_an_optimizer_imports_nothing_more():
    subprocess.run([sys.executable, "-c", CHILD], check=True, timeout=300)
