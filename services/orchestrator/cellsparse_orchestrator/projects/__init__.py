"""Projects: images as tiles, annotations with revisions, layers, and datasets made of them."""
