"""A finished answer is read again, line by line, without the automaton that made it; risks come from sorted losses."""

from __future__ import annotations

from math import fsum

import numpy as np
from numpy.typing import NDArray

from r1core.api import Reason
from r1core_var.advice_automaton import FORM, UNKNOWN
from r1core_var.advice_config import AdviceConfig
from r1core_var.advice_orders import HOLD, PROSE, SCALE_LINE, STOP_LINE, Desk
from r1core_var.quantiles import expected_shortfall, value_at_risk

_ROUNDING = 1e-12  # of the largest loss: what is no more over the limit than this is not over it


def findings(desk: Desk | None, config: AdviceConfig, text: str) -> list[Reason]:
    """What is wrong with the text: its form, an order without a limit, each order that brings the risk over it."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    if lines and config.rationale and len(lines) > 1 and PROSE.fullmatch(lines[-1]):
        lines.pop()
    if not lines or lines == [HOLD]:
        return []
    if desk is None:
        return [UNKNOWN]
    if len(lines) > config.max_orders:
        return [_form(f"{len(lines)} order lines, at most {config.max_orders} are allowed")]
    found: list[Reason] = []
    positions = desk.held.copy()
    for line in lines:
        read = (STOP_LINE if config.mode == "stop" else SCALE_LINE).fullmatch(line)
        if read is None or (read["id"] is not None and read["id"] not in desk.names):
            found.append(_form(line))
            continue
        if config.mode == "scale" and (flaw := _wish(read.groupdict())):
            found.append(_form(f"{line}: {flaw}"))
        if read["id"] is None:
            continue
        at, sign = desk.names.index(read["id"]), 1 if read["side"] == "BUY" else -1
        positions[at] += sign * int(read["units"])
        if sign < 0 and positions[at] < 0 and not desk.facts.short:
            found.append(Reason("var/limit", desk.limit(), f"{line}: sells what is not held"))
        elif over := _over(desk, positions):
            found.append(Reason("var/limit", desk.limit(), f"{line}: brings it to {desk.facts.money(over)}"))
    return found


def _wish(read: dict[str, str | None]) -> str:
    """What is wrong between a wish and the order behind it, or ""."""
    asked, units = int(read["asked"] or 0), int(read["units"] or 0)
    if read["side"] is not None and (read["side"].lower(), read["id"]) != (read["wanted"], read["of"]):
        return "the order is another than the wish"
    if units > asked:
        return "the order is larger than the wish"
    return "" if (units < asked) == (read["why"] is not None) else "a scaled order says why, another does not"


def _over(desk: Desk, positions: NDArray[np.float64]) -> float | None:
    """The risk, where it is over the limit by more than rounding; None where it is not."""
    facts = desk.facts
    if facts.scenarios is None:
        risk = desk.model.risk(positions)
        size = abs(risk)
    else:
        losses = np.array(
            [fsum(-p * x for p, x in zip(row, positions.tolist(), strict=True)) for row in facts.scenarios]
        )
        measure = expected_shortfall if facts.measure == "es" else value_at_risk
        risk, size = measure(losses, facts.level), float(np.abs(losses).max())
    return risk if risk > facts.limit + _ROUNDING * size else None


def _form(line: str) -> Reason:
    return Reason(FORM.rule, FORM.citation, line)
