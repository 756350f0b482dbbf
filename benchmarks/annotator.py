"""A simulated annotator: suggestions are answered from dense labels, as a person who knows every cell would.

A cell is drawn as it truly is, with the shifted background of the paper, so that all methods have the same kind of
labels. A suggestion that is mostly no cell is answered "not a cell": its true background becomes background. That is a
click, but no cell of the budget.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from nuclei import Picture

from cellsparse_sparsifier.background import Background
from cellsparse_sparsifier.cells import measure_cells
from cellsparse_sparsifier.selection import Mode, select_over
from cellsparse_sparsifier.sparsify import Settings, keep_cells
from cellsparse_sparsifier.suggest.candidates import Candidates, find_candidates, only_known
from cellsparse_sparsifier.suggest.choose import Method, Suggestion, suggest
from cellsparse_sparsifier.suggest.patches import CELL

SETTINGS = Settings(mode=Mode.RANDOM, background=Background.SHIFTED, total_cells=1)
"""Which background each labelled cell brings."""
IMAGES, PREDICTED_IMAGES, KNOWN_IMAGES = 64, 32, 32
"""Images that the service looks at without and with a model, and further ones with labelled cells."""
ROUNDS = 20
"""Most questions for one budget: some suggestions are no cells."""
Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(kw_only=True)
class Notebook:
    """What was answered so far."""

    cells: dict[str, list[int]] = field(default_factory=dict)
    """Labelled cells by image."""
    not_cells: dict[str, list[list[int]]] = field(default_factory=dict)
    """Rectangles [x, y, height, width] of what is no cell, by image; their true background is labelled."""
    clicks: int = 0
    """Answers in all."""

    @property
    def count(self) -> int:
        """Number of labelled cells."""
        return sum(map(len, self.cells.values()))

    def labels(self, picture: Picture) -> np.ndarray:
        """Return the sparse label image of a picture."""
        measured = measure_cells(picture.image, picture.label)
        kept = np.flatnonzero(np.isin(measured.numbers, self.cells.get(picture.name, [])))
        label = keep_cells(measured, kept, SETTINGS).label
        for x, y, height, width in self.not_cells.get(picture.name, []):
            place = slice(y, y + height), slice(x, x + width)
            label[place][(label[place] < 0) & (picture.label[place] == 0)] = 0
        return label

    def as_json(self) -> dict[str, Any]:
        """Return it as values that JSON knows."""
        return {"cells": self.cells, "not_cells": self.not_cells, "clicks": self.clicks}


def draw(pictures: Sequence[Picture], mode: Mode, count: int, seed: int) -> Notebook:
    """Keep cells of the dense labels as `cellsparse sparsify --total-cells` does: random, or the extremes."""
    measured = [measure_cells(picture.image, picture.label) for picture in pictures]
    means = [each.means[each.candidate] for each in measured]
    chosen = select_over(means, mode=mode, count=count, seed=seed)
    notebook = Notebook(clicks=sum(part.size for part in chosen))
    for picture, each, part in zip(pictures, measured, chosen, strict=True):
        numbers = each.numbers[np.flatnonzero(each.candidate)[part]]
        if numbers.size:
            notebook.cells[picture.name] = numbers.tolist()
    return notebook


def answer(suggestions: Sequence[Suggestion], pictures: Mapping[str, Picture], notebook: Notebook, budget: int) -> int:
    """Answer suggestions until the budget of cells is spent; return how many new cells there are."""
    before = notebook.count
    for each in suggestions:
        if notebook.count == budget:
            break
        picture, patch = pictures[each.image], each.patch
        height, width = patch.values.shape
        truth = picture.label[patch.y : patch.y + height, patch.x : patch.x + width]
        inside = truth[patch.values == CELL]
        numbers, sizes = np.unique(inside[inside > 0], return_counts=True)
        notebook.clicks += 1
        if 2 * sizes.sum() >= inside.size and numbers.size:
            number = int(numbers[sizes.argmax()])
            known = notebook.cells.setdefault(picture.name, [])
            if number not in known:
                known.append(number)
        else:
            notebook.not_cells.setdefault(picture.name, []).append([patch.x, patch.y, height, width])
    return notebook.count - before


def ask(
    pictures: Sequence[Picture],
    notebook: Notebook,
    budget: int,
    *,
    method: Method,
    seed: int,
    predict: Predict | None = None,
) -> None:
    """Ask for suggestions as the service makes them, and answer them, until the budget of cells is spent.

    Args:
        pictures: All images with their dense labels.
        notebook: What is labelled; changed in place.
        budget: Cells in all.
        method: How to choose.
        seed: Decides which images are looked at.
        predict: Segments an image (YX); None: there is no model.
    """
    by_name = {picture.name: picture for picture in pictures}
    predicted: dict[str, list[np.ndarray]] = {}
    for turn in range(ROUNDS):
        if notebook.count >= budget:
            return
        drawn = np.random.default_rng([seed, budget, turn // 2]).permutation(len(pictures))
        looked = sorted(drawn[: PREDICTED_IMAGES if predict else IMAGES].tolist())
        found = [_candidates(pictures[index], notebook, predict, predicted) for index in looked]
        names = {each.name for each in found}
        others = [name for name in notebook.cells if name not in names][:KNOWN_IMAGES]
        found += [only_known(_candidates(by_name[name], notebook, None, {})) for name in others]
        chosen = suggest(
            found,
            method=method,
            count=budget - notebook.count,
            seed=seed,
            predicted=predict is not None,
            labelled=notebook.count,
        )
        answer(chosen, by_name, notebook, budget)


def _candidates(
    picture: Picture, notebook: Notebook, predict: Predict | None, predicted: dict[str, list[np.ndarray]]
) -> Candidates:
    if predict is not None and picture.name not in predicted:
        predicted[picture.name] = predictions(picture.image, predict)
    labelled = picture.name in notebook.cells or picture.name in notebook.not_cells
    return find_candidates(
        picture.name, picture.image, notebook.labels(picture) if labelled else None, predicted.get(picture.name, ())
    )


def predictions(image: np.ndarray, predict: Predict) -> list[np.ndarray]:
    """Return the cells of an image and of its four turned copies, turned back, as the orchestrator asks for them."""
    turned = [
        np.flipud(predict(np.flipud(image))),
        np.fliplr(predict(np.fliplr(image))),
        np.rot90(predict(np.rot90(image)), -1),
        np.rot90(predict(np.rot90(image, -1))),
    ]
    return [np.ascontiguousarray(each, np.int32) for each in (predict(image), *turned)]


def seed_of(*words: object) -> int:
    """Return a seed of any words."""
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:4], "big")
