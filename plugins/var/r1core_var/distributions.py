"""Standardised distributions (mean 0, variance 1): normal, Student t, and the skewed t of Hansen (1994).

Each gives the density, the quantile and the mean below a quantile in closed form, so that value-at-risk and expected
shortfall of `mu + sigma Z` need no integration. Shapes are those of `arch`: degrees of freedom eta in (2.05, 500 or
300), skew lambda in (-1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from r1core_var.checks import Array, level_of

DistributionName = Literal["normal", "t", "skewt"]


class Standardised(Protocol):
    """A distribution of mean 0 and variance 1."""

    def logpdf(self, z: Array) -> Array:
        """Log density of each value."""
        ...

    def slope(self, z: Array) -> Array:
        """Derivative of the log density by z."""
        ...

    def quantile(self, p: npt.ArrayLike) -> Array:
        """Value below which a share p lies."""
        ...

    def mean_below(self, p: float) -> float:
        """Mean of the lowest share p."""
        ...


@dataclass(frozen=True, slots=True)
class Normal:
    """The standard normal distribution."""

    def logpdf(self, z: Array) -> Array:
        """Log density of each value."""
        return np.asarray(-0.5 * (np.log(2 * np.pi) + z * z))

    def slope(self, z: Array) -> Array:
        """Derivative of the log density by z."""
        return -z

    def quantile(self, p: npt.ArrayLike) -> Array:
        """Value below which a share p lies."""
        return np.asarray(special.ndtri(p))

    def mean_below(self, p: float) -> float:
        """Mean of the lowest share p: minus the density at its quantile over p."""
        return float(-stats.norm.pdf(special.ndtri(p)) / p)


@dataclass(frozen=True, slots=True)
class SkewedT:
    """Hansen's skewed t (1994, eqs. 10 to 12) with unit variance; `lam` 0 is the standardised Student t.

    Negative `lam` puts the longer tail on the side of losses.
    """

    eta: float
    lam: float = 0.0

    def _constants(self) -> tuple[float, float, float]:
        eta, lam = self.eta, self.lam
        log_c = special.gammaln((eta + 1) / 2) - special.gammaln(eta / 2) - 0.5 * np.log(np.pi * (eta - 2))
        a = 4 * lam * np.exp(log_c) * (eta - 2) / (eta - 1)
        return float(a), float(np.sqrt(1 + 3 * lam**2 - a**2)), float(log_c)

    def logpdf(self, z: Array) -> Array:
        """Log density of each value."""
        a, b, log_c = self._constants()
        y = (b * z + a) / (1 + np.sign(z + a / b) * self.lam)
        return np.asarray(np.log(b) + log_c - (self.eta + 1) / 2 * np.log1p(y * y / (self.eta - 2)))

    def slope(self, z: Array) -> Array:
        """Derivative of the log density by z."""
        a, b, _ = self._constants()
        side = 1 + np.sign(z + a / b) * self.lam
        y = (b * z + a) / side
        return np.asarray(-(self.eta + 1) * y / (self.eta - 2 + y * y) * b / side)

    def quantile(self, p: npt.ArrayLike) -> Array:
        """Value below which a share p lies."""
        a, b, _ = self._constants()
        p = np.asarray(p, dtype=np.float64)
        left = p < (1 - self.lam) / 2
        share = np.where(left, p / (1 - self.lam), 0.5 + (p - (1 - self.lam) / 2) / (1 + self.lam))
        side = np.where(left, 1 - self.lam, 1 + self.lam)
        return np.asarray((stats.t.ppf(share, self.eta) * side * np.sqrt(1 - 2 / self.eta) - a) / b)

    def mean_below(self, p: float) -> float:
        """Mean of the lowest share p, from the partial means of a t on either side of its mode."""
        a, b, _ = self._constants()
        scale, z = np.sqrt(1 - 2 / self.eta), float(self.quantile(p))

        def part(side: float, y: float) -> float:
            # integral of ((side * scale * u - a) / b) * side * t(u) up to y
            below = -stats.t.pdf(y, self.eta) * (self.eta + y * y) / (self.eta - 1)
            return float(side / b * (side * scale * below - a * stats.t.cdf(y, self.eta)))

        left, right = 1 - self.lam, 1 + self.lam
        if z <= -a / b:
            return part(left, (b * z + a) / (left * scale)) / p
        return (part(left, 0.0) + part(right, (b * z + a) / (right * scale)) - part(right, 0.0)) / p


def standardised(name: DistributionName, shape: npt.ArrayLike = ()) -> Standardised:
    """Return the distribution of this name with its shape parameters: none, (eta,) or (eta, lambda)."""
    shape = tuple(float(one) for one in np.atleast_1d(shape))
    return Normal() if name == "normal" else SkewedT(*shape)


def location_scale(distribution: Standardised, mu: float, sigma: float, level: float) -> tuple[float, float]:
    """Value-at-risk and expected shortfall (losses positive) of returns `mu + sigma Z`."""
    p = float(1 - level_of(level))
    return -(mu + sigma * float(distribution.quantile(p))), -(mu + sigma * distribution.mean_below(p))
