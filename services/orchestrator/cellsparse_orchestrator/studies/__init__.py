"""Studies: many runs over a grid of label sets, backends, settings and seeds."""
