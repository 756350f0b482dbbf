"""Keys of the dictionary in a Cellpose `_seg.npy` file."""

MASKS = "masks"
OUTLINES = "outlines"
LABELLED = "cellsparse_labelled"
"""Ours: which pixels are labelled, where not all of them are. Cellpose ignores it."""
NUMBERS = "cellsparse_numbers"
"""Ours: the cells' own numbers, where they are not 1 to n. Cellpose's window needs these."""
