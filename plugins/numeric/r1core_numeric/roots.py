"""Roots to a stated precision: growth rates and internal rates of return, with their number proved before one is taken.

Everything up to the last step is rational. How many rates there are is counted exactly, by Sturm's theorem (for
instance Basu, Pollack, Roy, Algorithms in Real Algebraic Geometry, section 2.2), so that "the" rate exists and is the
only one.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from itertools import pairwise

DIGITS = 50  # significant digits of a root
_WORK = Context(prec=DIGITS + 20, rounding=ROUND_HALF_EVEN, Emin=-(10**6), Emax=10**6)
_WIDTH = Fraction(1, 10 ** (DIGITS + 4))  # of the last bracket, relative to its upper end

Polynomial = list[Fraction]  # coefficients, the constant first


class NoRoot(Exception):
    """There is no rate, or more than one; caught by the executor, which abstains with this reason."""


def root(value: Fraction, degree: Fraction) -> tuple[Fraction, bool]:
    """The positive `degree`-th root of a positive number, and whether it is exact (else to 50 significant digits)."""
    if degree.denominator == 1:
        top, low = (_integer_root(part, degree.numerator) for part in (value.numerator, value.denominator))
        if top is not None and low is not None:
            return Fraction(top, low), True
    logarithm = _WORK.divide(_ln(value), _WORK.divide(Decimal(degree.numerator), Decimal(degree.denominator)))
    return Fraction(Context(prec=DIGITS).plus(_WORK.exp(logarithm))), False


def _ln(value: Fraction) -> Decimal:
    return _WORK.subtract(_WORK.ln(Decimal(value.numerator)), _WORK.ln(Decimal(value.denominator)))


def _integer_root(value: int, degree: int) -> int | None:
    """The exact integer root, or None; Newton's method in integers."""
    if value < 2 or degree == 1:
        return value
    if degree > value.bit_length():
        return None
    guess = 1 << -(-value.bit_length() // degree)
    while True:
        better = ((degree - 1) * guess + value // guess ** (degree - 1)) // degree
        if better >= guess:
            return guess if guess**degree == value else None
        guess = better


def rate_of_return(flows: Sequence[Fraction]) -> tuple[Fraction, bool]:
    """The one rate r > -1 with sum of flows[t] / (1 + r)^t = 0, and whether it is exact (else to 50 digits).

    Raises
    ------
    NoRoot : where there is none, or more than one.
    """
    poly = _stripped(list(flows))
    if len(poly) < 2 or all(c >= 0 for c in poly) or all(c <= 0 for c in poly):
        raise NoRoot("no rate of return: the cash flows do not change sign")
    chain = _sturm(poly)
    bound = 1 + max(abs(c) for c in poly[:-1]) / abs(poly[-1])  # Cauchy's bound on every root
    count = _changes(chain, Fraction(0)) - _changes(chain, bound)
    if count != 1:
        raise NoRoot(
            "no rate of return solves these cash flows"
            if not count
            else f"{count} rates of return solve these cash flows"
        )
    low, high = Fraction(0), bound
    while high - low > _WIDTH * high:
        middle = _short((low + high) / 2, low, high)
        if not _at(poly, middle):
            return 1 / middle - 1, True
        if _changes(chain, low) - _changes(chain, middle):
            high = middle
        else:
            low = middle
    exact = _simple((low + high) / 2, poly)
    if exact is not None:
        return 1 / exact - 1, True
    rate = 2 / (low + high) - 1
    return rate, False


def _simple(near: Fraction, poly: Polynomial) -> Fraction | None:
    """A root with a short denominator next to this number, where there is one (a rate of exactly 7 %)."""
    guess = near.limit_denominator(10**12)
    return guess if guess and not _at(poly, guess) else None


def _short(middle: Fraction, low: Fraction, high: Fraction) -> Fraction:
    """A number between two others that is near their middle and has few digits, so that brackets stay short."""
    bits = max(8, int((1 / (high - low)).__ceil__()).bit_length() + 4)
    short = Fraction(round(middle * (1 << bits)), 1 << bits)
    return short if low < short < high else middle


def _stripped(poly: Polynomial) -> Polynomial:
    """Without zeros at either end: flows that are not there."""
    while poly and not poly[-1]:
        poly.pop()
    first = next((i for i, c in enumerate(poly) if c), len(poly))
    return poly[first:]


def _at(poly: Polynomial, x: Fraction) -> Fraction:
    total = Fraction(0)
    for coefficient in reversed(poly):
        total = total * x + coefficient
    return total


def _sturm(poly: Polynomial) -> list[Polynomial]:
    chain = [poly, [i * c for i, c in enumerate(poly)][1:]]
    while len(chain[-1]) > 1 or (chain[-1] and chain[-1][0]):
        rest = _remainder(chain[-2], chain[-1])
        if not rest:
            break
        largest = max(abs(c) for c in rest)
        chain.append([-c / largest for c in rest])
    return chain


def _remainder(top: Polynomial, low: Polynomial) -> Polynomial:
    rest = list(top)
    while len(rest) >= len(low):
        factor, shift = rest[-1] / low[-1], len(rest) - len(low)
        for i, coefficient in enumerate(low):
            rest[shift + i] -= factor * coefficient
        rest.pop()
        while rest and not rest[-1]:
            rest.pop()
        if not rest:
            break
    return rest


def _changes(chain: Sequence[Polynomial], x: Fraction) -> int:
    signs = [value > 0 for poly in chain if (value := _at(poly, x))]
    return sum(a != b for a, b in pairwise(signs))
