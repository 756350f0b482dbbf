"""The ranking's only numbers that come from data: `benchmarks/prompts.py --fit` prints this file.

They are fitted on the split `train` of DSB2018 (CC0) by least squares, so that a mask's features give its IoU.
"""

CONSTANT = 0.7354
FACTORS = {
    "size": (-0.071529, -0.034244),
    "step": (-0.21149, 0.36783),
    "weak": (-0.10836, 0.079701),
    "inverse": (-0.045007, 0.30897),
    "rough": (0.034938, -0.0094131),
    "ellipse": (-1.717, 1.3276),
    "long": (0.018301, -0.0066853),
    "spread": (-0.30865, 0.17701),
    "around": (-0.12019, -0.048668),
    "centred": (0.073841, -0.14745),
    "border": (0.002563, -3.4045e-06),
    "agree": (0.93095, -0.066189),
    "touch": (-0.033253, -0.019581),
}
"""For each of `features.NAMES`, the factor of its value and of its square."""
