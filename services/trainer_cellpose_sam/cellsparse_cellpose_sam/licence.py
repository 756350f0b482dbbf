"""What people should know before they use weights that come from Cellpose."""

WEIGHTS_LICENCE = (
    "Licence: Cellpose's own weights, Cellpose-SAM's among them, were trained on data that is licensed under "
    "CC-BY-NC. Check whether your use is allowed; a model that is trained from them may come under the same terms."
)
"""Shown where weights come in and go out. Source: the README of cellpose 4.2."""
