"""Where tests find things that belong to no package."""

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
DSB2018 = ROOT.parent / "shared" / "data" / "dsb2018"
"""Real nuclei, on the project's own machines only: tests that want them are skipped where they are missing."""
