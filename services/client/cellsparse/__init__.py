"""Cellsparse: segmentation models from a few labelled cells.

Example:
    import cellsparse

    client = cellsparse.Client()
    dense = client.create_dataset("nuclei", items)
    sparse = client.sparsify(dense.id, mode="minmax", k=4, background="shifted")
    run = client.train(sparse.id, "unet", preset="fast")
    run.wait()
    labels = client.predict(run.id, "image.tif")
"""

from cellsparse import errors
from cellsparse.client import Client
from cellsparse.dataset_export import ExportedItem
from cellsparse.datasets import Item, ItemArrays
from cellsparse.items import Stored
from cellsparse.models import Prediction
from cellsparse.runs import Run
from cellsparse.studies import StudyHandle
from cellsparse.study_report import StudyReport
from cellsparse.suggestions import Suggestion, Suggestions

__all__ = [
    "Client", "ExportedItem", "Item", "ItemArrays", "Prediction", "Run", "Stored", "StudyHandle", "StudyReport",
    "Suggestion", "Suggestions", "errors",
]  # fmt: skip
