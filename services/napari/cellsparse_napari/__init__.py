"""Cellsparse in napari: train a segmentation model from a few cells of a labels layer, on a Cellsparse server.

`labels`, `pictures`, `progress`, `session` and `work` know neither Qt nor napari; the other modules are the dock widget.
"""
