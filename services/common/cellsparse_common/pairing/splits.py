"""Which items are trained on, validated on and tested on, where no folder says it."""

from collections.abc import Sequence

from cellsparse_common.errors import InvalidArgument
from cellsparse_common.pairing.folders import SPLITS

DEFAULT_FRACTIONS = (0.6, 0.2, 0.2)


def check_fractions(fractions: Sequence[float]) -> None:
    """Refuse shares that cannot be drawn.

    Raises:
        InvalidArgument: Not three shares from 0 to 1 with sum 1 and something to train on.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not abs(sum(fractions) - 1) <= 1e-6 or fractions[0] == 0:
        shown = ",".join(f"{share:g}" for share in fractions)
        raise InvalidArgument(
            f"split is {shown}; allowed: three shares train,val,test with sum 1, such as 0.6,0.2,0.2."
        )


def split_names(count: int, fractions: Sequence[float] = DEFAULT_FRACTIONS) -> list[str]:
    """Return a split for each of `count` items, in an order drawn once with a fixed seed.

    Every split with a share gets at least one item where there are items enough.

    Raises:
        InvalidArgument: Not three shares from 0 to 1 with sum 1 and something to train on.
    """
    check_fractions(fractions)
    val, test = (max(round(count * share), int(share > 0 and count >= 3)) for share in fractions[1:])
    train = max(count - val - test, 1)
    ordered = (["train"] * train + ["val"] * val + ["test"] * test)[:count]
    import numpy as np  # here: no other command of the client than an import of a folder needs it

    order = np.random.default_rng(0).permutation(count)
    return [ordered[index] for index in order]


def without(fractions: Sequence[float], named: set[str]) -> tuple[float, ...]:
    """Return shares for items beside folders of splits: those splits get nothing more."""
    kept = [0.0 if split in named else share for split, share in zip(SPLITS, fractions, strict=True)]
    return tuple(share / sum(kept) for share in kept)
