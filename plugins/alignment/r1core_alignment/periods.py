"""What a period is, told by its own two days: never by `fy` and `fp`, which describe the filing that states it.

A length holds for calendar years and for years of 52 or 53 weeks, cut 13-13-13-13, 12-12-12-16 or 16-12-12-12.
Not covered: lengths between these (months, transition periods, two years); they are no measure.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Measure = Literal["instant", "quarter", "six_months", "nine_months", "year", "ttm"]
MEASURES: tuple[Measure, ...] = ("instant", "quarter", "six_months", "nine_months", "year", "ttm")
DEFAULT: tuple[Measure, ...] = ("instant", "quarter", "year", "ttm")

LENGTHS: dict[Measure, tuple[int, int]] = {
    "quarter": (80, 119),
    "six_months": (164, 200),
    "nine_months": (249, 285),
    "year": (350, 380),
}
"""Days from the first to the last of a period, both counted, at least and at most: 12 to 17 weeks, 24 to 28, 36 to 40,
52 to 53, with a few days of slack and no other whole number of months between them."""
YEAR = LENGTHS["year"]

INSTANT, OTHER = 0, 5
KINDS: dict[Measure, int] = {"instant": INSTANT, "quarter": 1, "six_months": 2, "nine_months": 3, "year": 4}
"""Measure to the number by which facts of that length are sorted; `OTHER` is what has no measure."""


def kinds_of(start: NDArray[np.int64], end: NDArray[np.int64], instant: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The kind of each period, (N,)."""
    length = end - start + 1
    made = np.full(len(length), OTHER, np.int64)
    for measure, (least, most) in LENGTHS.items():
        made[(length >= least) & (length <= most)] = KINDS[measure]
    made[instant] = INSTANT
    return made
