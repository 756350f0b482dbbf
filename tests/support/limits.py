"""How long tests wait for what must happen.

A limit here only ends a test that would hang: it says nothing about speed, which benchmarks measure. A machine that is
busy with other work may be twenty times as slow as an idle one, so all limits are far above what is needed.
"""

PATIENCE = 300.0
"""Seconds for anything that takes moments on an idle machine: an answer, a process's start or end, an event."""

LONG_PATIENCE = 900.0
"""Seconds for what takes a minute on an idle machine: a study, a search, a demo."""

QUICK = 60.0
"""Seconds that tell "at once" from "after its own limit": below every limit of the product that a test provokes."""
