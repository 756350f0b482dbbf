"""Runs every training attempt as a Kubernetes Job."""
