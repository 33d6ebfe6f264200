"""What steps of the Poisson-subsampled Gaussian mechanism cost, by two accountants that share no code.

PRV (Gopi, Lee & Wutschitz 2021, "Numerical composition of differential privacy", as in Opacus) and PLD (Google's
`dp-accounting`), both under add-or-remove-one-unit adjacency. The larger of the two is what counts. Torch is imported
by Opacus, and so only where PRV is asked for.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from r1core.api import UserError

AGREE = 0.02  # in epsilon, between the two; more means that one of them is not to be trusted
TOLERANCE = 1e-3  # relative, of the noise multiplier that is looked for
MOST = 4.0  # times the noise of steps that follow no others: beyond it, little is learnt
MOST_ALONE = 1e4


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps taken alike. `noise_multiplier`: standard deviation over clipping norm. `sample_rate`: of a unit."""

    noise_multiplier: float
    sample_rate: float
    steps: int


@dataclass(frozen=True, slots=True)
class Epsilon:
    """What phases cost, by each accountant."""

    prv: float
    pld: float

    @property
    def value(self) -> float:
        """The larger one."""
        return max(self.prv, self.pld)


def epsilon_of(phases: Sequence[Phase], delta: float) -> Epsilon:
    """The epsilon of phases at this delta, by both accountants.

    Raises
    ------
    UserError : where they do not agree.
    """
    found = Epsilon(prv(phases, delta), pld(phases, delta))
    if abs(found.prv - found.pld) > max(AGREE, 0.02 * found.value):
        raise UserError(
            f"the accountants do not agree: PRV {found.prv:.4f}, PLD {found.pld:.4f}",
            fix="a larger delta, or a larger sampling rate; nothing is trained on a doubtful epsilon",
        )
    return found


def prv(phases: Sequence[Phase], delta: float) -> float:
    """By privacy random variables; an upper bound."""
    return _prv(tuple(merged(phases)), delta)


def pld(phases: Sequence[Phase], delta: float) -> float:
    """By privacy loss distributions, pessimistic."""
    return _pld(tuple(merged(phases)), delta)


@lru_cache(256)
def _prv(phases: tuple[Phase, ...], delta: float) -> float:
    if not phases:
        return 0.0
    try:
        from opacus.accountants import PRVAccountant
    except ModuleNotFoundError as error:
        raise UserError("accounting by PRV needs opacus", fix="pip install 'r1core-dp[train]'") from error
    accountant = PRVAccountant()
    accountant.history = [(p.noise_multiplier, p.sample_rate, p.steps) for p in phases]
    with warnings.catch_warnings(), np.errstate(divide="ignore"):  # log(0) where every unit is drawn
        # Of the Renyi bound by which Opacus chooses how wide its grid is; a wider one than needed.
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        return float(accountant.get_epsilon(delta))


@lru_cache(256)
def _pld(phases: tuple[Phase, ...], delta: float) -> float:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for phase in phases:
        gaussian = dp_accounting.GaussianDpEvent(phase.noise_multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(phase.sample_rate, gaussian), phase.steps)
    return float(accountant.get_epsilon(delta)) if phases else 0.0


def of_group(phases: Sequence[Phase], delta: float, records: int) -> float:
    """The epsilon of a group with so many records, each of which is a unit of its own, by PLD.

    A group's part in a step is as many clipped gradients as records of it are drawn, a binomial number: a mixture of
    Gaussians (Choquette-Choo et al. 2024, "Privacy amplification for matrix mechanisms", section 3).
    """
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for phase in merged(phases):
        q = phase.sample_rate
        chances = [math.comb(records, n) * q**n * (1 - q) ** (records - n) for n in range(records + 1)]
        event = dp_accounting.dp_event.MixtureOfGaussiansDpEvent(
            phase.noise_multiplier, [float(n) for n in range(records + 1)], chances
        )
        accountant.compose(event, phase.steps)
    return float(accountant.get_epsilon(delta))


def merged(phases: Sequence[Phase]) -> list[Phase]:
    """The same steps with equal ones joined, in the order in which they first come."""
    found: dict[tuple[float, float], int] = {}
    for phase in phases:
        key = (phase.noise_multiplier, phase.sample_rate)
        found[key] = found.get(key, 0) + phase.steps
    return [Phase(noise, rate, steps) for (noise, rate), steps in found.items() if steps]


def noise_for(epsilon: float, delta: float, sample_rate: float, steps: int, spent: Sequence[Phase] = ()) -> float:
    """The least noise multiplier, to a thousandth, with which these steps, after `spent`, cost at most `epsilon`.

    Raises
    ------
    UserError : when it would take more than `MOST` times the noise that the steps need by themselves, or any; when the
        accountants do not agree.
    """
    already = prv(spent, delta)
    told = f", {already:.3f} of it is spent" if spent else ""
    short = UserError(
        f"no noise of use brings {steps} steps below an epsilon of {epsilon:g}{told}",
        fix="fewer steps, or a larger epsilon; another run, where this one was trained to its end",
    )
    most = MOST * noise_for(epsilon, delta, sample_rate, steps) if spent else MOST_ALONE
    low, high = 0.0, 0.5

    def cost(noise: float) -> float:
        return prv([*spent, Phase(noise, sample_rate, steps)], delta)

    if already >= epsilon:
        raise short
    while cost(high) > epsilon:
        if high > most:
            raise short
        low, high = high, 2 * high
    while high - low > TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) > epsilon else (low, middle)
    if high > most:
        raise short
    while epsilon_of([*spent, Phase(high, sample_rate, steps)], delta).value > epsilon:
        high *= 1 + TOLERANCE
    return high
