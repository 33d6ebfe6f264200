"""Numbers of a prompt as spans of the kind `numeric/number`, with the features that a layer receives."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import replace

from r1core.api import Example, Span, SpanKind
from r1core_numeric.config import NumericConfig
from r1core_numeric.slots import numbers_of_messages
from r1core_numeric.values import Number, from_json, to_json

KIND = "numeric/number"
FIGURES = 12  # significant digits of the amount that features tell
_KINDS = ("quantity", "year", "date", "ordinal", "label", "unread")
_UNITS = ("unstated", "money", "percent", "basis_point", "multiple", "measure")
WIDTH = len(_KINDS) + len(_UNITS) + 6 + FIGURES + 2


def features(number: Number) -> Sequence[float]:
    """What a layer is told of a number: `WIDTH` numbers, each between -1 and 1 but for very large magnitudes.

    In order: kind (one of six); unit (one of six: unstated, money, percent, basis points, multiple, another measure);
    sign (-1, 0, 1); log10 of the magnitude of the value / 12 (0 for 0); whether it is above zero in magnitude; scale
    / 12; per share; places behind the point / 6; then the first twelve significant digits of the amount / 9, the
    first one first; last (1 + row) / 64 and (1 + column) / 16 of its cell, 0 outside of a table.
    """
    found = [float(number.kind == kind) for kind in _KINDS]
    cell = (0.0, 0.0) if number.cell is None else ((1 + number.cell.row) / 64, (1 + number.cell.column) / 16)
    if number.amount is None:
        return (*found, *([0.0] * (WIDTH - len(found) - 2)), *cell)
    found += [float(_unit(number) == unit) for unit in _UNITS]
    sign, figures, exponent = number.amount.as_tuple()
    size = abs(number.fraction)
    power = (math.log10(size.numerator) - math.log10(size.denominator)) / 12 if size else 0.0
    found += [float((size > 0) - 2 * (size > 0) * sign), power, float(size > 0), number.scale / 12]
    found += [float(number.unit.per != ""), max(0, -int(exponent)) / 6]
    shown = (figures + (0,) * FIGURES)[:FIGURES]
    return (*found, *(figure / 9 for figure in shown), *cell)


def _unit(number: Number) -> str:
    if number.unit.is_currency:
        return "money"
    return number.unit.name if number.unit.name in _UNITS else "measure" if number.unit.name else "unstated"


NUMBER = SpanKind(KIND, to_json, from_json, width=WIDTH, feature=features)


class NumberAnnotator:
    """Marks every number of a prompt; answers are left alone."""

    name = KIND
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds: tuple[SpanKind, ...] = (NUMBER,)

    def __init__(self, config: NumericConfig) -> None:
        self._config = config

    def __call__(self, example: Example) -> Example:
        """Return the example with a span for each number of its messages.

        Raises
        ------
        UserError : where the text that is marked as a table is not that of the field `table`.
        """
        numbers = numbers_of_messages(example, self._config.reading)
        spans = [Span(number.part, number.start, number.end, KIND, number) for number in numbers]
        others = tuple(span for span in example.spans if span.kind != KIND)
        return replace(example, spans=others).with_spans(spans)

    def fingerprint(self) -> str:
        """Hash of how numbers are read."""
        return hashlib.sha256(repr(self._config.reading).encode()).hexdigest()
