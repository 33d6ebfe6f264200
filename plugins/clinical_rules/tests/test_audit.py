"""The recheck of a finished text: names, doses, phrases; and that it agrees with the automaton on names."""

from __future__ import annotations

import ast
import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_clinical_rules import audit, doses, folding
from r1core_clinical_rules.audit import check_text
from r1core_clinical_rules.automaton import ForbiddenNames
from r1core_clinical_rules.engine import Engine
from r1core_clinical_rules.facts import patient_from
from r1core_clinical_rules.outcome import Outcome
from r1core_clinical_rules.rulebook import RuleBook, Sourced
from r1core_clinical_rules.schema import Drug, Rule

DRUGS = [
    Drug(name="warfarin", brands=("Coumadin",)),
    Drug(name="aspirin", aliases=("ASA",)),
    Drug(name="acetaminophen", brands=("Tylenol",), aliases=("paracetamol",)),
    Drug(name="ibuprofen", brands=("Advil",)),
]


def outcome(weight: str | None = "70 kg") -> Outcome:
    cited = {"title": "Handbook", "quote": "As it says."}
    base = {"version": 1, "status": "active", "title": "R", "severity": "major", "citation": cited}
    caps = [
        {"drug": "acetaminophen", "max": "1 g", "per": "dose"},
        {"drug": "acetaminophen", "max": "4 g", "per": "day"},
        {"drug": "ibuprofen", "max": "10 mg/kg", "per": "dose", "route": "PO"},
    ]
    thens = [
        {"forbid": {"drugs": ["warfarin", "aspirin"]}},
        {"cap_dose": caps},
        {"require_phrase": [{"any": ["see a doctor"]}]},
    ]
    rules = [Rule.model_validate({**base, "id": f"r{i}", "then": then}) for i, then in enumerate(thens)]
    book = RuleBook([Sourced(entry, "test") for entry in (*DRUGS, *rules)])
    facts = {} if weight is None else {"weight": weight}
    return Engine(book).evaluate(patient_from(facts, "test"))


OUTCOME = outcome()


def kinds(text: str, found_in: Outcome = OUTCOME) -> set[str]:
    return {finding.kind for finding in check_text(found_in, f"{text}. See a doctor")}


ABOVE, UNCLEAR = {"dose_above_cap"}, {"dose_not_comparable"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acetaminophen 1000 mg every 6 hours", set()),
        ("acetaminophen 1,000 mg q6h", set()),
        ("acetaminophen 1000.001 mg q6h", ABOVE),
        ("acetaminophen 1 001 mg q6h", ABOVE),
        ("give 5 g of paracetamol daily", ABOVE),
        ("TYLENOL 500-1500 mg twice daily", ABOVE),
        ("Tylenol 2 x 650 mg bid", ABOVE),
        ("Tylenol 2 tablets of 325 mg bid", set()),
        ("Tylenol 325 mg x 4 daily", ABOVE),
        ("acetaminophen 650 mg q3h", ABOVE),  # 5.2 g a day
        ("acetaminophen 650 mg three times daily", set()),
        ("acetaminophen 650 mg four times a day", set()),
        ("acetaminophen 500 mg nine times a day", ABOVE),
        ("acetaminophen 1 g/day", set()),
        ("acetaminophen 5 g per day", ABOVE | UNCLEAR),
        ("acetaminophen 3 g/day", UNCLEAR),  # one dose of it may be above 1 g
        ("acetaminophen ½ g bid", set()),
        ("acetaminophen 1½ g bid", ABOVE),
        ("acetaminophen 3/2 g bid", ABOVE),
        ("acetaminophen two grams daily", ABOVE),
        ("acetaminophen half gram daily", set()),
        ("acetaminophen 1500000 mcg daily", ABOVE),
        ("acetaminophen 1.5e3 mg daily", ABOVE),
        ("acetaminophen 0.002 kg daily", ABOVE),
        ("acetaminophen ١٥٠٠ mg daily", ABOVE),
        ("Ac\u200betaminophen 1500 ｍｇ daily", ABOVE),
        ("acetaminophen 20 mg/kg daily", ABOVE),
        ("acetaminophen 10 mg/kg daily", set()),
        ("acetaminophen 500 mg", UNCLEAR),  # how often is not said
        ("acetaminophen 3 tablets", UNCLEAR),
        ("acetaminophen 7 blips daily", UNCLEAR),
        ("acetaminophen 500", UNCLEAR),
        ("acetaminophen 10 mL daily", UNCLEAR),
        ("acetaminophen 10 mg/mL", UNCLEAR),
        ("acetaminophen for a man of 70 kg", set()),
        ("for 3 days take acetaminophen", set()),
        ("acetaminophen 3 times daily for 10 days", set()),
        ("ibuprofen 2000 mg IV", set()),  # its cap is for PO
        ("ibuprofen 2000 mg", ABOVE),
        ("ibuprofen 2000 mg by mouth", ABOVE),
        ("ibuprofen 700 mg PO, acetaminophen 500 mg tid", set()),
        ("acetaminophen 500 mg tid with ibuprofen 701 mg orally", ABOVE),
        ("no drug at all, 5 g daily", set()),
    ],
)
def test_a_dose_is_found_however_it_is_written(text: str, expected: set[str]) -> None:
    assert kinds(text) == expected


def test_without_a_weight_no_dose_per_kilogram_passes() -> None:
    assert kinds("ibuprofen 1 mg PO", outcome(None)) == UNCLEAR


def test_a_finding_names_place_rules_and_reason() -> None:
    text = "Take Couma-din 5 mg and acetaminophen 2 g daily"
    name, dose, phrase = check_text(OUTCOME, text)
    assert (text[name.start : name.end], name.rules, name.kind) == ("Couma-din", ("r0@1",), "forbidden_name")
    assert (text[dose.start : dose.end], dose.rules) == ("2 g", ("r1@1",))
    assert dose.why == "acetaminophen: at most 1 g per dose"
    assert (phrase.kind, phrase.start, phrase.rules) == ("missing_phrase", len(text), ("r2@1",))


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["warfarin", "Coumadin", "aspirin", "ASA", "warfari", "asap"]),
    st.lists(st.sampled_from(["", "", "", "-", " ", "\u200b", "\u0301", "…", "\n"]), min_size=8, max_size=8),
    st.sampled_from(["", "x", "take ", "日"]),
    st.sampled_from(["", "s", " daily", "!"]),
    st.booleans(),
)
def test_the_recheck_finds_what_the_automaton_refuses(
    name: str, gaps: list[str], before: str, after: str, wide: bool
) -> None:
    spelled = "".join(letter + gap for letter, gap in zip(name, gaps, strict=False))
    if wide:
        spelled = "".join(chr(ord(c) - 33 + 0xFF01) if "!" <= c <= "~" else c for c in spelled)
    text = before + spelled + after
    automaton = ForbiddenNames(OUTCOME.forbidden)
    state, refused = automaton.start, False
    for byte in text.encode():
        state = int(automaton.row(state)[byte])
        refused = state < 0
        if refused:
            break
    refused = refused or not automaton.may_end(state)
    assert bool([f for f in check_text(OUTCOME, text) if f.kind == "forbidden_name"]) is refused


def test_the_recheck_shares_no_code_with_the_automaton() -> None:
    barred = {"characters", "automaton", "symbol_automaton", "utf8", "aho_corasick", "names", "phrases"}
    for module in (audit, doses, folding):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.module.rsplit(".", 1)[-1] not in barred
