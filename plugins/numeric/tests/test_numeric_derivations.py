"""Derivations as people write them, and all of TAT-QA's, where the data is there."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction
from pathlib import Path

import pytest
from r1core_numeric.derivations import pointed, read_derivation
from r1core_numeric.execute import Result, execute
from r1core_numeric.formats import rounded
from r1core_numeric.programs import Apply, Program
from r1core_numeric.reader import read

from r1core.api import UserError

TATQA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "tatqa" / "tatqa_dataset_dev.json.gz"


def value(text: str) -> Fraction:
    derivation = read_derivation(text)
    done = execute(Program(derivation.expression), derivation.numbers)
    assert isinstance(done, Result), done
    return done.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("44.1-56.7", Fraction(-126, 10)),
        ("(44.1-56.7)/56.7", Fraction(-126, 567)),
        ("126 / 67 - 1", Fraction(126, 67) - 1),
        ("[(166+178)/2] - [(57+44)/2]", Fraction(243, 2)),
        ("-114 - (71)", -43),
        ("3 + (13) + 26", 16),
        ("-5,637-(-3,990)", -1647),
        ("$5,121 +$(-5,946) + $17,592", 16767),
        ("$5,121 + $(5,946)", -825),
        ("$(290.2 + 239.6 + 190.4)", Fraction(7202, 10)),
        ("- (197 + 101 + 206) / 3", -168),
        ("(1-15%)*($2.2/15%)", Fraction(85, 100) * Fraction(22, 10) / Fraction(15, 100)),
        ("60.3 million + 32,137 thousand", 92_437_000),
        ("2 × 3 ÷ 4", Fraction(3, 2)),
        ("8,000/$9,750", Fraction(8000, 9750)),
    ],
)
def test_a_derivation_is_worth_what_it_says(text: str, expected: Fraction | int) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "op"),
    [
        ("(5-4)/4", "percent_change"), ("($5-$4)/4", "percent_change"), ("5/4-1", "percent_change"),
        ("(5+4+3)/3", "average"), ("(2.5+2.4+3.2)/(2019-2017+1)", "average"), ("(5+4)/3", "divide"),
    ],
)  # fmt: skip
def test_the_operation_that_is_spelled_out_is_named(text: str, op: str) -> None:
    expression = read_derivation(text).expression
    assert isinstance(expression, Apply)
    assert expression.op == op


@pytest.mark.parametrize("text", ["", "5 +", "(5", "5)", "__import__('os')", "5 5", "1.234,5 + 1", "a + b", "5 ** 2"])
def test_what_is_no_derivation_is_refused_with_the_place(text: str) -> None:
    with pytest.raises(UserError, match=r"derivation .*character"):
        read_derivation(text)


def test_numbers_are_pointed_at_slots_and_the_others_declared() -> None:
    slots = read("Sales were $5.5 million and $(4) million.")
    node, named, found = pointed(read_derivation("(5.5 - 4) / 7"), slots)
    done = execute(Program(node), slots)
    assert isinstance(done, Result)
    assert (done.value, named, found, done.slots) == (Fraction(1_500_000, 7), 3, 2, (0, 1))
    assert any("declared" in told for told in done.assumptions)


@pytest.mark.skipif(not TATQA.exists(), reason="the TAT-QA development set is not at ../shared/data/tatqa")
def test_the_gold_derivations_of_tatqa_are_reproduced() -> None:
    with gzip.open(TATQA) as file:
        contexts = json.load(file)
    scales = {"": 0, "percent": 0, "thousand": 3, "million": 6, "billion": 9}
    missed, total = [], 0
    for question in (q for context in contexts for q in context["questions"] if q["answer_type"] == "arithmetic"):
        total += 1
        derivation = read_derivation(question["derivation"])
        done = execute(Program(derivation.expression), derivation.numbers)
        assert isinstance(done, Result), question["derivation"]
        own = scales[question["scale"]] if any(n.scale for n in derivation.numbers) else 0
        ratio = question["scale"] == "percent" and done.unit.name in ("pure", "percent")
        shown = done.value * (100 if ratio else 1) / 10**own
        if rounded(shown, 2, "half_up") != Fraction(str(question["answer"])):
            missed.append(question["derivation"])
    assert total == 718
    assert len(missed) <= 0.005 * total, missed
