"""The demo: from a real image to scores, with the public client."""
