"""The demo: the main job on a real image, from nothing to scores, with the same client that everybody uses."""
