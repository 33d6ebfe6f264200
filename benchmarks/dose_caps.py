"""Are doses above a cap found, and only those? Generated doses and units, judged by rational arithmetic of its own.

Each draw is a cap and a dose in any unit of mass, per dose or per day, flat or per kilogram, decided twice: by
`exceeds` on quantities, and by the recheck of a sentence that holds the dose. Most doses lie on the cap, or off it by a
millionth or by half. The oracle knows units as powers of ten and parses nothing.
"""

from __future__ import annotations

import argparse
import random
from decimal import Decimal
from fractions import Fraction

import record
from r1core_clinical_rules.audit import check_text
from r1core_clinical_rules.engine import Engine
from r1core_clinical_rules.facts import patient_from
from r1core_clinical_rules.outcome import exceeds
from r1core_clinical_rules.rulebook import RuleBook, Sourced
from r1core_clinical_rules.schema import Drug, Rule
from r1core_clinical_rules.units import quantity

POWERS = {"g": 0, "mg": -3, "mcg": -6, "µg": -6, "ng": -9, "kg": 3, "grams": 0, "milligrams": -3, "micrograms": -6}
OFTEN = {"": None, " once daily": 1, " twice daily": 2, " q8h": 3, " every 6 hours": 4, " q4h": 6, " tid": 3}
DRUGS = ("acetaminophen", "ibuprofen", "warfarin", "ASA")


def number(rng: random.Random) -> Decimal:
    """A positive number of up to six digits with up to four places."""
    places = rng.randint(0, 4)
    return Decimal(rng.randint(1, 10 ** rng.randint(1, 6))).scaleb(-places)


def written(value: Fraction, rng: random.Random) -> tuple[Decimal, str] | None:
    """The grams in a random unit, where that is a number that a text would hold."""
    unit = rng.choice(list(POWERS))
    scaled = value / Fraction(10) ** POWERS[unit]
    rest = scaled.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    if rest != 1:
        return None
    digits = Decimal(scaled.numerator) / Decimal(scaled.denominator)
    return (digits, unit) if digits < 10**15 and -digits.as_tuple().exponent <= 12 else None  # type: ignore[operator]


def engine_for(drug: str, most: str, per: str) -> Engine:
    """The rules with one cap."""
    cap = {"drug": drug, "max": most, "per": per}
    made = {"id": "cap", "version": 1, "status": "active", "title": "Cap", "severity": "major"}
    cited = {"title": "benchmark", "quote": "generated"}
    rule = Rule.model_validate({**made, "citation": cited, "then": {"cap_dose": [cap]}})
    return Engine(RuleBook([*(Sourced(Drug(name=name), name) for name in DRUGS), Sourced(rule, "cap")]))


def draw(rng: random.Random) -> tuple[bool, bool, str]:
    """One draw: whether both decisions agree with the oracle, whether it was above, and what was asked."""
    while True:
        drug, per, weighs = rng.choice(DRUGS), rng.choice(("dose", "day")), rng.random() < 0.3
        limit, measure, weight = number(rng), rng.choice(("g", "mg", "mcg")), number(rng) + 1
        cap = Fraction(limit) * Fraction(10) ** POWERS[measure] * (Fraction(weight) if weighs else 1)
        near = rng.choice((Fraction(0), Fraction(1, 10**6), Fraction(-1, 10**6), Fraction(1, 2), Fraction(-1, 2)))
        grams = cap * (1 + near) if rng.random() < 0.7 else Fraction(number(rng)) / 1000
        often = rng.choice([text for text in OFTEN if (OFTEN[text] is None) == (per == "dose")])
        found = written(grams / (OFTEN[often] or 1), rng)
        if found is None:
            continue
        value, unit = found
        above = Fraction(value) * Fraction(10) ** POWERS[unit] * (OFTEN[often] or 1) > cap
        most = f"{limit:f} {measure}{'/kg' if weighs else ''}"
        outcome = engine_for(drug, most, per).evaluate(patient_from({"weight": f"{weight:f} kg"}, "draw"))
        text = f"{rng.choice(('Give', 'Take', 'I suggest'))} {drug} {value:f} {unit}{often}."
        kinds = {finding.kind for finding in check_text(outcome, text)}
        (held,) = outcome.caps
        dose = quantity(f"{value * (OFTEN[often] or 1):f} {unit}")
        agree = exceeds(dose, held) is above and kinds == ({"dose_above_cap"} if above else set())
        return agree, above, f"{most} per {per} at {weight} kg: {text} -> {kinds}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    right = over = 0
    for _ in range(arguments.draws):
        agree, above, what = draw(rng)
        right, over = right + agree, over + above
        if not agree:
            print(f"differs: {what}")
    share = right / arguments.draws
    figure = f"dose caps as the exact oracle says, {arguments.draws} doses, {over} of them above"
    row = {"figure": figure, "value": share, "unit": "share", "target": 1.0, "peer": None}
    record.write("dose_caps", [{**row, "met": right == arguments.draws}])


if __name__ == "__main__":
    main()
