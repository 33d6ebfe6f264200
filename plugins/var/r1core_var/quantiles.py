"""Empirical quantiles and tail means of losses, with the convention named.

The default quantile is `inverted_cdf` (Hyndman and Fan 1996, type 1): the smallest loss x with F(x) >= level, an
observed loss. The expected shortfall is the exact mean of the worst `1 - level` of the mass, the loss at its edge
counted with the fraction that belongs to it (Acerbi and Tasche 2002, definition 2.6); it is coherent, whichever
quantile convention the value-at-risk has. A confidence level counts as the decimal that is written: 0.99 of 1,000 is
rank 990, with no rounding of binary fractions.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from r1core import api
from r1core_var.checks import Array, level_of

QuantileMethod = Literal[
    "inverted_cdf", "averaged_inverted_cdf", "hazen", "weibull", "linear", "median_unbiased", "normal_unbiased"
]
DEFAULT: QuantileMethod = "inverted_cdf"
# virtual rank g(n, q), counted from 1, between order statistics (Hyndman and Fan 1996, types 5 to 9)
_POSITIONS: dict[str, tuple[Fraction, Fraction]] = {
    "hazen": (Fraction(1, 2), Fraction(1, 2)),
    "weibull": (Fraction(0), Fraction(0)),
    "linear": (Fraction(1), Fraction(1)),
    "median_unbiased": (Fraction(1, 3), Fraction(1, 3)),
    "normal_unbiased": (Fraction(3, 8), Fraction(3, 8)),
}


def ranks(count: int, level: float, method: QuantileMethod = DEFAULT) -> tuple[int, int, float]:
    """Return two ranks (from the smallest, counted from 0) and the weight of the second that make the quantile.

    Raises
    ------
    api.UserError : for a level or method that there is not.
    """
    q = level_of(level)
    if method not in get_args(QuantileMethod):
        raise api.UserError(
            f"no quantile convention {method!r}", fix=f"use one of {', '.join(get_args(QuantileMethod))}"
        )
    if method in _POSITIONS:
        a, b = _POSITIONS[method]
        place = q * (count + 1 - a - b) + a
        low = place.numerator // place.denominator
        weight = float(place - low)
    else:
        product = q * count
        low = -(-product.numerator // product.denominator)
        whole = product.denominator == 1
        weight = 0.5 if method == "averaged_inverted_cdf" and whole else 0.0
    first = min(max(low, 1), count) - 1
    second = min(max(low + 1, 1), count) - 1
    return first, second, weight


def tail(count: int, level: float) -> tuple[int, float, float]:
    """Return how many of the worst losses count whole, the weight of the next one, and their mass together."""
    mass = (1 - level_of(level)) * count
    whole = mass.numerator // mass.denominator
    return whole, float(mass - whole), float(mass)


def value_at_risk(losses: npt.ArrayLike, level: float, method: QuantileMethod = DEFAULT) -> float:
    """Return the `level` quantile of losses `(T,)` (positive = loss), finite."""
    ordered = np.sort(np.asarray(losses, dtype=np.float64))
    first, second, weight = ranks(len(ordered), level, method)
    return float(ordered[first] + weight * (ordered[second] - ordered[first]))


def expected_shortfall(losses: npt.ArrayLike, level: float) -> float:
    """Return the mean of the worst `1 - level` of losses `(T,)`, the edge with its exact fraction."""
    ordered = np.sort(np.asarray(losses, dtype=np.float64))[::-1]
    whole, part, mass = tail(len(ordered), level)
    edge = part * ordered[whole] if part else 0.0
    return float((ordered[:whole].sum() + edge) / mass)


def sorted_rows(ordered: Array, level: float, method: QuantileMethod = DEFAULT) -> tuple[Array, Array]:
    """Value-at-risk and expected shortfall of each row of ascending losses `(N, T)`: two arrays `(N,)`."""
    count = ordered.shape[1]
    first, second, weight = ranks(count, level, method)
    var = ordered[:, first] + weight * (ordered[:, second] - ordered[:, first])
    whole, part, mass = tail(count, level)
    edge = part * ordered[:, count - whole - 1] if part else 0.0
    return var, (ordered[:, count - whole :].sum(axis=1) + edge) / mass
