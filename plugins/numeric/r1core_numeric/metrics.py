"""Metrics of answers with numbers: exactly the reference's quantities, and how many numbers have no provenance."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from r1core.api import Example
from r1core_numeric.claims import unsupported
from r1core_numeric.config import NumericConfig
from r1core_numeric.constraint import Memory
from r1core_numeric.reader import Reading, read
from r1core_numeric.values import Unit


def quantities(text: str, reading: Reading) -> list[tuple[Fraction, Unit]]:
    """The quantities of a text as values with units, sorted; 50 bp and 0.5 % are the same."""
    found = []
    for number in read(text, reading):
        if number.kind in ("quantity", "year"):
            unit = Unit("percent", number.unit.per) if number.unit.name == "basis_point" else number.unit
            found.append((number.fraction, Unit() if number.kind == "year" else unit))
    return sorted(found, key=lambda pair: (pair[0], str(pair[1])))


class Exact:
    """Share of answers that state exactly the reference's quantities: equal values, equal units, none more, none less.

    Spelling does not matter ("1.2 million", "1,200,000"); a year counts by its number.
    """

    name = "numeric/exact"
    higher_is_better = True

    def __init__(self, config: NumericConfig) -> None:
        self._reading = config.reading

    def __call__(self, predictions: Sequence[str], references: Sequence[str], examples: Sequence[Example]) -> float:
        """Between 0 and 1; 0 of no answers."""
        pairs = zip(predictions, references, strict=True)
        right = sum(quantities(p, self._reading) == quantities(r, self._reading) for p, r in pairs)
        return right / len(predictions) if predictions else 0.0


class Unsupported:
    """Numbers without provenance in an answer, on average: neither in the prompt, its table, nor a program's result.

    What a layer chose is known for the latest `KEPT` answers of this process; of others its results count as found
    nowhere.
    """

    name = "numeric/unsupported"
    higher_is_better = False

    def __init__(self, config: NumericConfig, memory: Memory) -> None:
        self._config, self._memory = config, memory

    def __call__(self, predictions: Sequence[str], references: Sequence[str], examples: Sequence[Example]) -> float:
        """From 0 upwards; 0 of no answers."""
        found = 0
        for text, example in zip(predictions, examples, strict=True):
            may = self._memory.of(example.without_answer()).allowed
            found += len(unsupported(text, may, self._config.reading))
        return found / len(predictions) if predictions else 0.0
