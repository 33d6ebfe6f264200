"""The supervisory traffic light of the Basel Committee (1996; MAR32.9 of the framework in force since 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scipy import stats

from r1core import api
from r1core_var.checks import level_of

Zone = Literal["green", "yellow", "red"]
YELLOW, RED = 0.95, 0.9999  # cumulative probability at which a zone begins (Basel Committee 1996, table 2)
DAYS, LEVEL = 250, 0.99  # what the multipliers are defined for
PLUS_1996 = (0.0, 0.0, 0.0, 0.0, 0.0, 0.40, 0.50, 0.65, 0.75, 0.85, 1.0)  # on top of 3, by exceedances
MULTIPLIER_MAR32 = (1.50, 1.50, 1.50, 1.50, 1.50, 1.70, 1.76, 1.83, 1.88, 1.92, 2.00)


@dataclass(frozen=True, slots=True)
class TrafficLight:
    """Zone of a number of exceedances.

    `cumulative` is the probability of so many or fewer under a right model. The multipliers are None unless there are
    250 days at 99 %.
    """

    exceedances: int
    days: int
    zone: Zone
    cumulative: float
    multiplier_1996: float | None
    multiplier_mar32: float | None


def traffic_light(exceedances: int, days: int = DAYS, level: float = LEVEL) -> TrafficLight:
    """Return the zone: yellow where so many or fewer have a probability of 95 % or more, red at 99.99 %.

    Raises
    ------
    api.UserError : where there are more exceedances than days, or fewer than none.
    """
    if not 0 <= exceedances <= days or days < 1:
        raise api.UserError(f"found {exceedances} exceedances in {days} days", fix="count them over the same days")
    cumulative = float(stats.binom.cdf(exceedances, days, float(1 - level_of(level))))
    zone: Zone = "green" if cumulative < YELLOW else "yellow" if cumulative < RED else "red"
    defined = days == DAYS and level == LEVEL
    at = min(exceedances, len(PLUS_1996) - 1)
    return TrafficLight(
        exceedances,
        days,
        zone,
        cumulative,
        3.0 + PLUS_1996[at] if defined else None,
        MULTIPLIER_MAR32[at] if defined else None,
    )
