"""The pure part of `make bench-suggest`: the simulated annotator and the curves."""

import numpy as np
import pytest
from annotator import Notebook, answer, ask, draw, predictions
from nuclei import Picture
from scipy import ndimage
from suggest_curves import IOUS, area, curves, markdown, needed
from support.scenes import scene

from cellsparse_sparsifier.selection import Mode
from cellsparse_sparsifier.suggest.candidates import find_candidates
from cellsparse_sparsifier.suggest.choose import Method, Suggestion
from cellsparse_sparsifier.suggest.patches import Patch


def shots(count=4):
    return [
        Picture(name=f"n{number}", image=pixels, label=label)
        for number, (pixels, label) in ((number, scene(number)) for number in range(count))
    ]


def bright(image):
    return ndimage.label(image > 5000)[0].astype(np.int32)


def test_the_annotator_draws_the_true_cell_or_says_that_it_is_none():
    picture = shots(1)[0]
    found = find_candidates(picture.name, picture.image)
    inside = next(patch for patch in found.patches if (patch.values == 1).sum() > 50)
    nowhere = next(
        Patch(x=x, y=y, values=np.ones((6, 6), np.uint8))
        for y in range(150)
        for x in range(150)
        if not picture.label[y : y + 6, x : x + 6].any()
    )
    notebook = Notebook()
    asked = [
        Suggestion(image=picture.name, cell=True, patch=patch, score=0.5, reason="Why.")
        for patch in (inside, inside, nowhere)
    ]
    assert answer(asked, {picture.name: picture}, notebook, 5) == 1
    assert (notebook.count, notebook.clicks) == (1, 3)
    label = notebook.labels(picture)
    (number,) = notebook.cells[picture.name]
    assert ((label == number) == (picture.label == number)).all()
    assert (label[nowhere.y : nowhere.y + 6, nowhere.x : nowhere.x + 6] == 0).all()
    assert set(np.unique(label).tolist()) == {-1, 0, number}
    assert Notebook(**notebook.as_json()) == notebook


def test_budgets_are_spent_exactly_and_repeat_themselves():
    pictures = shots()
    for mode in (Mode.RANDOM, Mode.MINMAX):
        assert draw(pictures, mode, 6, 1).count == 6
    first, again = Notebook(), Notebook()
    for notebook in (first, again):
        ask(pictures, notebook, 4, method=Method.TYPICAL, seed=0)
        assert notebook.count == 4
        known = {name: list(cells) for name, cells in notebook.cells.items()}
        ask(pictures, notebook, 8, method=Method.ERRORS, seed=0, predict=bright)
        assert notebook.count == 8
        assert all(notebook.cells[name][: len(cells)] == cells for name, cells in known.items())
    assert first == again


def test_predictions_of_turned_images_lie_where_the_image_does():
    image = np.arange(12).reshape(3, 4)
    assert all((found == image).all() for found in predictions(image, lambda turned: turned))


def test_cells_that_are_needed_lie_between_budgets_by_the_logarithm():
    line = [(2, 0.2), (8, 0.6), (32, 0.8)]
    assert needed(line, 0.1) == 2
    assert needed(line, 0.4) == pytest.approx(4)
    assert needed(line, 0.7) == pytest.approx(16)
    assert needed(line, 0.9) is None
    assert area(line) == pytest.approx((0.4 + 0.7) / 2)
    assert area(line[:1]) == 0.2


def result(method, budget, seed, tp):
    counts = [{"iou": iou, "tp": tp, "fp": 100 - tp, "fn": 100 - tp} for iou in IOUS]
    job = {"backend": "unet", "method": method, "budget": budget, "seed": seed}
    return {"job": job, "counts": counts, "cells": budget, "clicks": budget + 1}


def test_the_report_has_means_bands_and_what_is_missing():
    results = [result("dense", 0, 0, 90)]
    results += [result("random", budget, seed, 40 + budget + seed) for budget in (2, 4) for seed in (0, 2)]
    results += [result("suggest", budget, 0, 80 + budget) for budget in (2, 4)]
    report = curves(results)
    entry = report["backends"]["unet"]
    assert entry["dense_f1"] == pytest.approx(0.9)
    random = entry["methods"]["random"]
    assert random["points"][0]["f1_0.5"] == pytest.approx({"mean": 0.43, "least": 0.42, "greatest": 0.44})
    assert random["cells_to_0.9"] is None
    assert entry["methods"]["suggest"]["cells_to_0.9"] == 2
    text = markdown({"scope": "Few.", "commits": ["abc"], **report})
    assert "| random | 0.430 (0.42 to 0.44) | 0.450 (0.44 to 0.46) | 0.440 | not reached | not reached | 5 |" in text
