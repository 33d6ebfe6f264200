"""A plot of losses, forecasts and exceedances as inline SVG, without a plotting library."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from r1core_var.checks import Array
from r1core_var.values import Forecasts

WIDTH, HEIGHT = 960, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 26, 34
_MOST_POINTS = 1200  # points of a line; the forecast keeps the lowest of each stretch, so that an exceedance is seen


def exceedance_plot(forecasts: Forecasts, dates: Sequence[datetime.date] | None = None) -> str:
    """Return an `<svg>` of daily losses (grey), the forecast value-at-risk (line) and the days beyond it (red).

    Losses are positive and drawn upward, in percent. `dates` are of the forecast days, or None to number them.
    """
    losses, var = 100 * forecasts.losses, 100 * forecasts.value_at_risk
    beyond = np.flatnonzero(forecasts.exceedances)
    count = len(losses)
    low, high = min(float(losses.min()), 0.0), max(float(losses.max()), float(var.max()))
    high = high + 0.05 * (high - low)

    def x(day: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * day / max(count - 1, 1)

    def y(value: float) -> float:
        return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="11">',
        f"<title>Daily losses and {forecasts.level:.4g} value-at-risk, {escape(forecasts.model)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for tick in _ticks(low, high):
        parts.append(f'<path d="M{_LEFT} {y(tick):.1f}H{WIDTH - _RIGHT}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g} %</text>')
    marked = dict.fromkeys(np.linspace(0, count - 1, 7).astype(int).tolist())
    for day in marked:
        label = str(dates[day]) if dates else f"day {forecasts.first + day}"
        anchor = "end" if day == count - 1 and count > 1 else "middle"
        parts.append(f'<text x="{x(day):.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">{label}</text>')
    stems = "".join(f"M{x(day):.1f} {y(0):.1f}V{y(loss):.1f}" for day, loss in enumerate(losses))
    parts.append(f'<path d="{stems}" stroke="#b9bec5" stroke-width="0.6"/>')
    parts.append(f'<path d="{_line(var, x, y)}" fill="none" stroke="#1f4e8c" stroke-width="1.2"/>')
    parts.extend(f'<circle cx="{x(day):.1f}" cy="{y(losses[day]):.1f}" r="2.6" fill="#c0281f"/>' for day in beyond)
    level = f"{100 * forecasts.level:.4g} % value-at-risk"
    legend = f"grey: daily loss; blue: {level}; red: {len(beyond)} exceedances of {count} days"
    parts.append(f'<text x="{_LEFT}" y="15">{legend}</text></svg>')
    return "".join(parts)


def _line(values: Array, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    step = -(-len(values) // _MOST_POINTS)
    days = [at + int(np.argmin(values[at : at + step])) for at in range(0, len(values), step)]
    return "M" + "L".join(f"{x(day):.1f} {y(values[day]):.1f}" for day in days)


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 6
    unit = 10.0 ** np.floor(np.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [float(round(tick, 10)) for tick in np.arange(np.ceil(low / step) * step, high, step)]
