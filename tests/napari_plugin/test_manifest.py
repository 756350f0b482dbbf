"""The manifest says what napari shows, and what it names can be loaded."""

from importlib.metadata import entry_points

import pytest

pytest.importorskip(
    "napari.qt", reason="napari or its Qt is not installed here; see `make test-napari`", exc_type=ImportError
)

from npe2 import PluginManifest


def test_napari_finds_the_plugin_by_its_entry_point():
    (found,) = [entry for entry in entry_points(group="napari.manifest") if entry.name == "cellsparse-napari"]
    assert found.value == "cellsparse_napari:napari.yaml"


def test_all_that_the_manifest_names_can_be_loaded():
    manifest = PluginManifest.from_distribution("cellsparse-napari")
    manifest.validate_imports()
    (widget,) = manifest.contributions.widgets
    assert widget.display_name == "Train from a few cells"
