"""Small charts as inline SVG: a line chart and a bar chart with error bars. Colours come from the page's CSS.

Every chart is `role="img"` with a title and a description for those who cannot see it; no script, no external font.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from r1core.api import Series

_WIDTH, _HEIGHT = 460, 250  # viewBox units, about pixels at full size
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 14, 28, 42  # margins around the plot area
_MANY = 60  # points beyond which a noisy line is drawn faint, with its moving average over it
_FEW = 20  # points up to which each is marked
_HUGE = 1e300  # values from here on are treated like infinity
_SERIES_CLASSES = 6  # colours that the CSS defines


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; `error` is half the length of its whisker, in the unit of `value`."""

    label: str
    value: float
    error: float | None
    text: str
    strong: bool = False


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers, evenly in `[low, high]`; the step is 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(title: str, x_label: str, y_label: str, series: Sequence[Series]) -> str:
    """A line chart; points that are not finite leave a gap. Raises `ValueError` for x and y of unequal length."""
    lines = [list(zip(one.x, one.y, strict=True)) for one in series]
    finite = [point for line in lines for point in _finite(line)]
    if not finite:
        return _figure(title, "no data", '<text x="230" y="125" text-anchor="middle">no data</text>')
    plot = _Plot(*_bounds([x for x, _ in finite], pad=0.0), *_bounds([y for _, y in finite], pad=0.06))
    body = [plot.axes(x_label, y_label)]
    for index, line in enumerate(lines):
        colour = f"s{index % _SERIES_CLASSES}"
        dense = len(line) > _MANY and _is_noisy(line)
        body.append(f'<path class="line {colour}{" faint" if dense else ""}" d="{plot.path(_thin(line))}"/>')
        if dense:
            body.append(f'<path class="line {colour}" d="{plot.path(_thin(_smooth(line)))}"/>')
        elif len(line) <= _FEW:
            spots = [f'cx="{plot.x(x):.1f}" cy="{plot.y(y):.1f}"' for x, y in _finite(line)]
            body += [f'<circle class="dot {colour}" {spot} r="3"/>' for spot in spots]
    if len(series) > 1:
        body.append(_legend([one.label for one in series]))
    spoken = "; ".join(_describe(one.label, line) for one, line in zip(series, lines, strict=True))
    return _figure(title, f"{y_label or title} over {x_label}. {spoken}", "".join(body))


def bar_chart(title: str, bars: Sequence[Bar], *, high: float | None = None) -> str:
    """Horizontal bars from zero with whiskers; `high` fixes the end of the axis. Values must not be negative."""
    row, left, right = 34, 190, 120
    width, height = 760, row * len(bars) + 12
    top = high or max((bar.value + (bar.error or 0) for bar in bars), default=1.0) or 1.0
    scale = (width - left - right) / top
    body = []
    for index, bar in enumerate(bars):
        middle = 6 + row * index + row / 2
        end, strong = left + bar.value * scale, " strong" if bar.strong else ""
        body.append(
            f'<text class="name{strong}" x="{left - 12}" y="{middle + 5:.1f}" text-anchor="end">'
            f"{escape(bar.label)}</text>"
            f'<rect class="bar{strong}" x="{left}" y="{middle - 9:.1f}" width="{max(end - left, 1):.1f}" '
            'height="18" rx="3"/>'
        )
        reach = bar.error * scale if bar.error else 0.0
        if reach:
            near, far = max(left, end - reach), end + reach
            line = f"M{near:.1f} {middle:.1f}H{far:.1f}M{near:.1f} {middle - 4:.1f}v8M{far:.1f} {middle - 4:.1f}v8"
            body.append(f'<path class="whisker" d="{line}"/>')
        body.append(f'<text class="value" x="{end + reach + 10:.1f}" y="{middle + 5:.1f}">{escape(bar.text)}</text>')
    body.append(f'<path class="axis" d="M{left} 4V{height - 4}"/>')
    spoken = "; ".join(f"{bar.label}: {bar.text}" for bar in bars)
    return _figure(title, spoken, "".join(body), width=width, height=height, kind="bars")


class _Plot:
    """Data to viewBox coordinates of a line chart."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self.x_range, self.y_range = (x_low, x_high), (y_low, y_high)

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        parts, pen = [], "M"
        for x, y in points:
            if _drawable(x, y):
                parts.append(f"{pen}{self.x(x):.1f} {self.y(y):.1f}")
                pen = "L"
            else:
                pen = "M"
        return "".join(parts)

    def axes(self, x_label: str, y_label: str) -> str:
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        marks, y_ticks, x_ticks = [], ticks(*self.y_range, count=4), ticks(*self.x_range)
        for value, text in zip(y_ticks, _numbers(y_ticks), strict=True):
            at = self.y(value)
            marks.append(
                f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>'
                f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{text}</text>'
            )
        for value, text in zip(x_ticks, _numbers(x_ticks), strict=True):
            marks.append(f'<text x="{self.x(value):.1f}" y="{bottom + 17}" text-anchor="middle">{text}</text>')
        across, up = (_LEFT + right) / 2, (_TOP + bottom) / 2
        marks.append(f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>')
        marks.append(f'<text x="{across:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
        turned = f'transform="translate(12 {up:.1f}) rotate(-90)"'
        marks.append(f'<text {turned} text-anchor="middle">{escape(y_label)}</text>')
        return "".join(marks)


def _bounds(values: Sequence[float], pad: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low <= max(1e-12 * max(abs(low), abs(high)), 1e-200):  # flat, as far as doubles can tell
        spread = max(abs(low) * 0.5, 1e-9)
        return low - spread, high + spread
    margin = (high - low) * pad
    return low - (0.0 if low == 0.0 else margin), high + margin


def _numbers(values: Sequence[float]) -> list[str]:
    """Tick labels of one axis, all with as many digits as its step needs."""
    step = abs(values[1] - values[0]) if len(values) > 1 else abs(values[0]) or 1.0
    largest = max(abs(value) for value in values)
    if largest and (largest < 1e-3 or largest >= 1e6):
        return [f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e") if value else "0" for value in values]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += 0 if math.isclose(round(step, digits), step, rel_tol=1e-6) else 1
    return [f"{value + 0.0:,.{digits}f}" for value in values]


def _is_noisy(points: Sequence[tuple[float, float]]) -> bool:
    """Whether a line goes up and down far more than from one end of its range to the other."""
    heights = [y for _, y in _finite(points)]
    travelled = sum(abs(after - before) for before, after in pairwise(heights))
    return len(heights) > 1 and travelled > 3 * (max(heights) - min(heights))


def _smooth(points: Sequence[tuple[float, float]], share: float = 0.06) -> list[tuple[float, float]]:
    """Centred moving average over `share` of the points."""
    finite = _finite(points)
    reach = max(1, int(len(finite) * share / 2))
    means = []
    for index, (x, _) in enumerate(finite):
        window = finite[max(0, index - reach) : index + reach + 1]
        means.append((x, sum(y for _, y in window) / len(window)))
    return means


def _thin(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most about `most` points: the lowest and the highest of each stretch stay, so no spike is lost."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        ends = {min(stretch, key=_height), max(stretch, key=_height)}
        kept += sorted(ends)
    return kept


def _height(point: tuple[float, float]) -> float:
    return point[1]


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if _drawable(x, y)]


def _drawable(x: float, y: float) -> bool:
    """Neither NaN nor so large that the axis would overflow."""
    return abs(x) < _HUGE and abs(y) < _HUGE


def _describe(label: str, points: Sequence[tuple[float, float]]) -> str:
    finite = [y for _, y in _finite(points)]
    if not finite:
        return f"{label}: no data"
    return f"{label}: from {finite[0]:.3g} to {finite[-1]:.3g}, lowest {min(finite):.3g}, highest {max(finite):.3g}"


def _legend(labels: Sequence[str]) -> str:
    """Labels side by side above the plot area, where no line can run through them."""
    items, at = [], float(_LEFT)
    for index, label in enumerate(labels):
        items.append(
            f'<path class="line s{index % _SERIES_CLASSES}" d="M{at:.0f} 12h18"/>'
            f'<text x="{at + 24:.0f}" y="16">{escape(label)}</text>'
        )
        at += 24 + 7 * len(label) + 18  # 7 units: about the mean width of a letter at 12 units
    return f"<g>{''.join(items)}</g>"


def _figure(
    title: str, description: str, body: str, *, width: int = _WIDTH, height: int = _HEIGHT, kind: str = "lines"
) -> str:
    label = escape(f"{title}. {description}")
    return (
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )
