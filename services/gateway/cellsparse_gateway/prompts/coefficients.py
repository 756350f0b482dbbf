"""The ranking's only numbers that come from data: `benchmarks/prompts.py --fit` prints this file.

They are fitted on 3,000 clicks (seed 1) in the split `train` of DSB2018 (CC0) by least squares, so that the features of
a mask give its IoU.
"""

CONSTANT = 0.6595
FACTORS = {
    "size": (-0.049017, -0.026541),
    "step": (-0.24619, 0.29793),
    "weak": (-0.12059, 0.068835),
    "inverse": (-0.077795, 0.42008),
    "rough": (0.037276, -0.0061393),
    "ellipse": (-1.6338, 1.3),
    "long": (0.01649, 0.0012845),
    "spread": (-0.28108, 0.15395),
    "around": (-0.04033, -0.095374),
    "centred": (0.064565, -0.11632),
    "border": (0.0017025, -1.7161e-06),
    "agree": (0.86697, 0.042098),
    "bright": (-0.069893, -0.0077175),
}
"""For each of `features.NAMES`, the factor of its value and of its square."""
