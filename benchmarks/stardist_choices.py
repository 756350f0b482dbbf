"""Score one StarDist model on DSB2018's split "val", with other probabilities and outlines than it was fitted with.

Usage: python benchmarks/stardist_choices.py FOLDER [--data FOLDER] [--images 50]

FOLDER is what `python benchmarks/trial.py stardist --export FOLDER` wrote. One line for each prior of
`outline_refinement.PRIORS` at the model's own probability, then one for each probability at the model's own prior.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nuclei import DSB2018, Picture, pictures

from cellsparse_common.scoring.matching import Counts, match_counts
from cellsparse_stardist.instances import Thresholds
from cellsparse_stardist.model import StardistModel, open_model
from cellsparse_trainer.data.samples import as_fed
from cellsparse_trainer.models.outline_refinement import PRIORS, OutlineLevel, refine

IOUS = (0.5, 0.7, 0.8, 0.9)
PROBABILITIES = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75)


def main() -> None:
    """Score the model that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=DSB2018)
    parser.add_argument("--images", type=int, default=50)
    given = parser.parse_args()
    model = open_model(given.folder, "cpu")
    own, level = model.thresholds, model._outline_level
    cases = [] if level is None else [(own, replace(level, prior=prior)) for prior in PRIORS]
    cases += [(replace(own, prob=prob), level) for prob in PROBABILITIES]
    found = pictures(given.data, "val", given.images, whole=True)
    for (thresholds, at), counts in zip(cases, score(model, found, cases), strict=True):
        prior = "none" if at is None else at.prior
        shown = "  ".join(
            f"@{each.iou} F1 {2 * each.tp / max(1, 2 * each.tp + each.fp + each.fn):.3f} "
            f"AP {each.tp / max(1, each.tp + each.fp + each.fn):.3f}"
            for each in counts
        )
        print(f"probability {thresholds.prob} prior {prior}: {shown}", flush=True)


def score(
    model: StardistModel, found: Sequence[Picture], cases: Sequence[tuple[Thresholds, OutlineLevel | None]]
) -> list[list[Counts]]:
    """Return the counts of each case at each IoU, over all pictures; the network runs once for each."""
    totals = [[Counts(iou=iou) for iou in IOUS] for _ in cases]
    for picture in found:
        image = as_fed(picture.image, model._config.plan, stack=False)
        segmented = model._segment_at(image, [thresholds for thresholds, _ in cases])
        for total, (_, level), cells in zip(totals, cases, segmented, strict=True):
            counts = match_counts(picture.label, refine(image, cells, level).labels, IOUS)
            total[:] = [a + b for a, b in zip(total, counts, strict=True)]
    return totals


if __name__ == "__main__":
    main()
