"""What steps of the Poisson-subsampled Gaussian mechanism cost, by two accountants that share no code.

PRV (Gopi, Lee & Wutschitz 2021, "Numerical composition of differential privacy", as in Opacus) and PLD (Google's
`dp-accounting`), both under add-or-remove-one-unit adjacency. The larger of the two is what counts. Torch is imported
by Opacus, and so only where PRV is asked for.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from r1core.api import UserError

AGREE = 0.02  # in epsilon, between the two; more means that one of them is not to be trusted
TOLERANCE = 1e-3  # relative, of the noise multiplier that is looked for
MOST = 4.0  # times the noise of steps that follow no others: beyond it, little is learnt
MOST_ALONE = 1e4
LEAST = 0.1  # noise multiplier; less is not looked for, where delta alone would allow it
USUAL_SLOPE = -2.0  # of log epsilon over log noise, before two noises were tried
STRIDE = math.log(2.0)  # farthest from one noise that is tried to the next
PRV_ERROR = 0.01  # in epsilon, of the grid of PRV; part of the bound that it gives (Opacus' default)
PLD_INTERVALS = (1e-4, 1e-3)  # of privacy loss between two points of the grid of PLD: the library's default, and ours
PLD_PESSIMISM = 0.03  # interval times the root of the steps: what the grid adds to epsilon then stays near 1e-4


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
    if not abs(found.prv - found.pld) <= max(AGREE, 0.02 * found.value):  # nor where one is no number
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
        from opacus.accountants.analysis import prv as parts
    except ModuleNotFoundError as error:
        raise UserError("accounting by PRV needs opacus", fix="pip install 'r1core-dp[train]'") from error
    tail = delta / 1000  # of delta, for what lies beyond the grid (Opacus' default)
    with warnings.catch_warnings(), np.errstate(divide="ignore"):  # log(0) where every unit is drawn
        # Of the Renyi bound that says how wide the grid is; a wider one than needed.
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        width, steps = _width(phases, tail), [phase.steps for phase in phases]
        mesh = PRV_ERROR / np.sqrt(sum(steps) * np.log(12 / tail) / 2)
        grid = parts.Domain.create_aligned(-width, width, mesh)
        each = [parts.PoissonSubsampledGaussianPRV(phase.sample_rate, phase.noise_multiplier) for phase in phases]
        cut = [parts.TruncatedPrivacyRandomVariable(one, grid.t_min, grid.t_max) for one in each]
        whole = parts.compose_heterogeneous([parts.discretize(one, grid) for one in cut], steps)
        return float(whole.compute_epsilon(delta, tail, PRV_ERROR)[2])


def _width(phases: Sequence[Phase], tail: float) -> float:
    """How far the grid has to reach (Gopi et al., remark 5.6), as Opacus' `compute_safe_domain_size` finds it.

    There nineteen twentieths of the time of an epsilon went into Renyi divergences, each of which was reckoned twice,
    and again for every epsilon; here they are kept.
    """
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import get_privacy_spent

    def bound(rdp: NDArray[np.float64], delta: float) -> float:
        return float(get_privacy_spent(orders=RDPAccountant.DEFAULT_ALPHAS, rdp=rdp, delta=delta)[0])

    each = [_renyi(phase.noise_multiplier, phase.sample_rate) for phase in phases]
    steps = [phase.steps for phase in phases]
    together = np.sum([rdp * n for rdp, n in zip(each, steps, strict=True)], axis=0)
    return max(PRV_ERROR, bound(together, tail / 4), *(bound(rdp, tail / (8 * sum(steps))) for rdp in each)) + 3


@lru_cache(256)
def _renyi(noise_multiplier: float, sample_rate: float) -> NDArray[np.float64]:
    """The Renyi divergence of a step at each of Opacus' orders."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.analysis.rdp import compute_rdp

    orders = RDPAccountant.DEFAULT_ALPHAS
    return np.asarray(compute_rdp(q=sample_rate, noise_multiplier=noise_multiplier, steps=1, orders=orders))


@lru_cache(256)
def _pld(phases: tuple[Phase, ...], delta: float) -> float:
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    steps = sum(phase.steps for phase in phases)
    interval = float(np.clip(PLD_PESSIMISM / math.sqrt(max(1, steps)), *PLD_INTERVALS))
    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, interval)
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

    0 for no steps.

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
    if already >= epsilon:
        raise short
    if not steps:
        return 0.0  # of what remains to be hidden

    def excess(noise: float, before: Sequence[Phase]) -> float:
        cost = prv([*before, Phase(noise, sample_rate, steps)], delta)
        return math.log(max(cost, 1e-3 * epsilon) / epsilon)  # a cost of next to nothing can come out below nothing

    near = max(1.0, sample_rate * math.sqrt(steps))  # grows so, by the central limit
    found = _least(lambda noise: excess(noise, ()), near, MOST_ALONE)
    if found is not None and spent:
        near = max(found, spent[-1].noise_multiplier)  # what is spent asks for more, and has asked for this
        found = _least(lambda noise: excess(noise, spent), near, MOST * found)
    if found is None:
        raise short
    while epsilon_of([*spent, Phase(found, sample_rate, steps)], delta).value > epsilon:
        found *= 1 + TOLERANCE
    return found


def _least(excess: Callable[[float], float], guess: float, most: float) -> float | None:
    """The least noise, to a thousandth, whose excess is not above 0; None where even that of `most` is.

    By secants, on the logarithm of the noise: an excess costs an accountant's run, so few are asked for. What is asked
    for stays half the tolerance inside of what is known, so that both sides close in.
    """
    low, high, end = math.log(LEAST), math.inf, math.log(most)  # too little, enough
    place, slope, before, tries = min(math.log(guess), end), USUAL_SLOPE, None, 0
    while high - low > TOLERANCE:
        here, tries = excess(math.exp(place)), tries + 1
        enough = here <= 0  # what is no number is not
        if not enough and place == end:
            return None
        low, high = (low, place) if enough else (place, high)
        if before is not None:
            slope = min((here - before[1]) / (place - before[0]), -1e-6)
        before = place, here
        creeps = tries % 5 == 0 and high < math.inf
        aim = (low + high) / 2 if creeps else place - here / slope
        nearest, farthest = low + TOLERANCE / 2, high - TOLERANCE / 2
        place = min(max(aim, nearest, place - STRIDE), farthest, place + STRIDE, end)
    return math.exp(high)
