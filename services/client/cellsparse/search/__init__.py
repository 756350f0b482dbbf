"""Search: training settings found by Optuna, one ordinary run per trial, pruned by its validations.

Example:
    import cellsparse
    from cellsparse import search

    client = cellsparse.Client()
    plan = search.make_plan(
        "few-rates", "ds-0123456789ab", "unet", over={"learning_rate": "1e-5..1e-2:log", "batch_size": [2, 4, 8]}
    )
    report = search.run(client, plan, at_once=2)
    labels = client.predict(report.document["best"]["model_id"], "image.tif")

Needs Optuna, which the extra `search` installs. A driver that was killed resumes when it is started again with the same
plan: the trials are stored in the home folder, and the runs continue without it.
"""

from cellsparse.search.driver import Listener, run
from cellsparse.search.folder import load_plan, names
from cellsparse.search.plan import SearchPlan, make_plan
from cellsparse.search.report import SearchReport, report, row_document
from cellsparse.search.trial_store import TrialRow

__all__ = [
    "Listener",
    "SearchPlan",
    "SearchReport",
    "TrialRow",
    "load_plan",
    "make_plan",
    "names",
    "report",
    "row_document",
    "run",
]
