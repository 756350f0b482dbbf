"""Cellsparse in napari: train a segmentation model from a few cells of a labels layer, on a Cellsparse server.

`labels`, `pictures`, `polling`, `progress`, `session` and `work` know neither Qt nor
napari. The other modules are the dock widget.
"""
