"""What rounds of noise on the mean cost a client, by privacy loss distributions (Google's `dp-accounting`).

The unit is a whole client. All clients take part in every round, so that no sampling amplifies: each round is the
Gaussian mechanism on a sum that one client moves by at most the clipping norm.
"""

from __future__ import annotations

from functools import lru_cache

from r1core.api import UserError

TOLERANCE = 1e-4  # relative, of the noise multiplier that is looked for
MOST = 1e5


@lru_cache(64)
def epsilon_of(noise_multiplier: float, rounds: int, delta: float) -> float:
    """The epsilon of so many rounds, under adding or removing one client."""
    if not rounds:
        return 0.0
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.GaussianDpEvent(noise_multiplier), rounds)
    return float(accountant.get_epsilon(delta))


def noise_for(epsilon: float, rounds: int, delta: float) -> float:
    """The least noise multiplier, to a ten-thousandth, with which so many rounds cost at most `epsilon`.

    Raises
    ------
    UserError : when no noise of use does.
    """
    low, high = 0.0, 1.0
    while epsilon_of(high, rounds, delta) > epsilon:
        low, high = high, 2 * high
        if high > MOST:
            raise UserError(f"no noise of use brings {rounds} rounds to epsilon {epsilon:g}", fix="a larger epsilon")
    while high - low > TOLERANCE * high:
        middle = (low + high) / 2
        if epsilon_of(middle, rounds, delta) > epsilon:
            low = middle
        else:
            high = middle
    return high
