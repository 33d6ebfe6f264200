"""Axes and lines of the charts."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from r1core.api import Series
from r1core.runs.report.svg import Bar, bar_chart, line_chart, ticks

FINITE = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)


@given(FINITE, st.floats(min_value=1e-6, max_value=1e9))
def test_ticks_are_few_rising_and_inside(low: float, width: float) -> None:
    high = low + width
    if not high > low:
        return
    found = ticks(low, high)
    slack = 1e-6 * width + 1e-9 * abs(low)
    assert len(found) <= 7
    assert all(low - slack <= value <= high + slack for value in found)
    assert found == sorted(found)


@given(st.lists(st.floats(), max_size=500))
def test_any_curve_gives_a_drawing_of_finite_numbers(values: list[float]) -> None:
    svg = line_chart("t", "x", "y", [Series("s", tuple(map(float, range(len(values)))), tuple(values))])
    root = ElementTree.fromstring(svg)
    for path in root.iter("path"):
        numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d") or "")]
        assert all(math.isfinite(number) and -1 <= number <= 461 for number in numbers)


def test_a_spike_survives_thinning() -> None:
    heights = [1.0] * 5000
    heights[2718] = 50.0
    svg = line_chart("t", "x", "y", [Series("s", tuple(map(float, range(5000))), tuple(heights))])
    line = re.findall(r'class="line[^>]* d="([^"]+)"', svg)[0]
    tops = [float(y) for _, y in re.findall(r"[ML]([\d.]+) ([\d.]+)", line)]
    assert min(tops) < max(tops) - 100
    assert len(tops) <= 402


def test_bars_are_as_long_as_their_values() -> None:
    svg = bar_chart("t", [Bar("a", 0.2, None, "20 %"), Bar("b", 0.8, 0.1, "80 %")], high=1.0)
    short, long = (float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', svg))
    assert math.isclose(long / short, 4.0, rel_tol=1e-2)
    assert svg.count("whisker") == 1
