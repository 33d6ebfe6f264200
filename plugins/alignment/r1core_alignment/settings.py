"""What a fact's use depends on besides its filing date."""

from __future__ import annotations

from dataclasses import dataclass

from r1core.api import UserError


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for; none of it can make a fact known before the day after its filing.

    Parameters
    ----------
    lag : days that a fact stays unknown beyond its filing date, 0 to 3,650.
    max_age : days from a period's end after which it is not shown, 0 to 73,000; None = until a later one is known.
    additive, non_additive : concepts whose periods add up, or do not, whatever their unit and name say.

    Raises
    ------
    UserError : for a lag or an age outside of that, or that is no whole number.
    """

    lag: int = 0
    max_age: int | None = None
    additive: frozenset[str] = frozenset()
    non_additive: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name, days, most in (("lag", self.lag, 3_650), ("max_age", self.max_age, 73_000)):
            if days is None and name == "max_age":
                continue
            if isinstance(days, bool) or not isinstance(days, int) or not 0 <= days <= most:
                why = "; a negative one would show facts before they were filed" if name == "lag" else ""
                raise UserError(f"{name} is {days!r}, expected whole days, 0 to {most}{why}", fix=f"{name} = 0")
