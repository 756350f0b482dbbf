"""Proposals for the cell under a click: from a model's prediction, from the pixels alone, or from a user's own SAM."""
