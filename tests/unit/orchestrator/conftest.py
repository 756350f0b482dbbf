"""A database with a dataset, and a reconciler around a trainer that does what a test says."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
