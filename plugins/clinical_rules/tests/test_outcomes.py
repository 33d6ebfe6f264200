"""From facts to an outcome: every kind of fact, unknowns, caps, phrases, overrides and proofs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_clinical_rules.engine import Engine
from r1core_clinical_rules.facts import patient_from
from r1core_clinical_rules.outcome import Outcome, exceeds
from r1core_clinical_rules.phrases import RequiredPhrases
from r1core_clinical_rules.reading import input_files, load, read
from r1core_clinical_rules.rulebook import RuleBook, Sourced
from r1core_clinical_rules.schema import Allergen, Drug, Policy, Rule
from r1core_clinical_rules.units import quantity

from r1core.api import UserError

DRUGS = [
    Drug(name="warfarin", brands=("Coumadin",), classes=("anticoagulant",)),
    Drug(name="aspirin", aliases=("ASA",), classes=("NSAID",), cross_reactivity=("salicylates",)),
    Drug(name="acetaminophen", brands=("Tylenol",)),
    Allergen(name="salsalate", cross_reactivity=("salicylates",)),
]
PARENTS = {"N18.4": ["N18"], "n18": ["Kidney  disease"]}
FORBID = {"forbid": {"drugs": ["aspirin"]}}
NO_UNKNOWN = {"medications": [], "allergies": [], "conditions": []}


def rule(when: dict[str, Any] | None, then: dict[str, Any] = FORBID, **more: Any) -> Rule:
    cited = {"title": "Handbook", "quote": "As it says."}
    base = {"id": "r", "version": 1, "status": "active", "title": "R", "severity": "major", "citation": cited}
    return Rule.model_validate({**base, "then": then, **({} if when is None else {"when": when}), **more})


def outcome(rules: list[Rule] | Rule, facts: dict[str, Any] | None, **policy: Any) -> Outcome:
    every = rules if isinstance(rules, list) else [rules]
    book = RuleBook([Sourced(entry, "test") for entry in (*DRUGS, *every)], PARENTS)
    assert book.problems() == []
    return Engine(book, Policy.model_validate(policy)).evaluate(patient_from(facts, "test"))


def truth(when: dict[str, Any], facts: dict[str, Any] | None) -> bool | None:
    """Whether a rule of this condition holds: it applies under `block` and not under `skip` where it is unknown."""
    blocked, skipped = outcome(rule(when), facts), outcome(rule(when), facts, on_unknown="skip")
    if not blocked.applied:
        return False
    ((_, found),) = blocked.applied
    assert bool(skipped.applied) == (found is True)
    return found


LAB = {"name": "potassium", "value": 5.6, "unit": "mmol/L", "date": "2026-10-30"}


@pytest.mark.parametrize(
    ("when", "facts", "expected"),
    [
        ({"age": {"at_least": "18 years"}}, {"age": 18}, True),
        ({"age": {"at_least": "18 years"}}, {"age": "17.99 years"}, False),
        ({"age": {"below": "28 days"}}, {"birth_date": "2026-10-10", "as_of": "2026-11-01"}, True),
        ({"age": {"at_least": "18 years"}}, {"birth_date": "2008-11-02", "as_of": "2026-11-01"}, False),
        ({"age": {"at_least": "18 years"}}, {"birth_date": "2008-11-02"}, None),
        ({"sex": "female"}, {"sex": "male"}, False),
        ({"sex": "female"}, {"sex": "other"}, None),
        ({"weight": {"below": "3.5 kg"}}, {"weight": "3499 g"}, True),
        ({"pregnancy": True}, {"pregnancy": {"trimester": 2}}, True),
        ({"pregnancy": {"trimester": [3]}}, {"pregnancy": {"trimester": 2}}, False),
        ({"pregnancy": {"trimester": [3]}}, {"pregnancy": True}, None),
        ({"pregnancy": {"trimester": [3]}}, {"pregnancy": False}, False),
        ({"lactation": True}, {}, None),
        ({"allergies": {"any": ["aspirin"]}}, {"allergies": ["Salsalate tablets"]}, True),
        ({"allergies": {"any": ["aspirin"], "cross_reactive": False}}, {"allergies": ["salsalate"]}, False),
        ({"allergies": {"any": ["aspirin"]}}, {"allergies": ["salicylates"]}, True),
        ({"allergies": {"any": ["aspirin"]}}, {"allergies": []}, False),
        ({"allergies": {"any": ["aspirin"]}}, {}, None),
        ({"conditions": {"any": ["kidney disease"]}}, {"conditions": [{"name": "CKD 4", "code": "N18.4"}]}, True),
        ({"conditions": {"any": ["kidney disease"], "descendants": False}}, {"conditions": ["N18.4"]}, False),
        ({"conditions": {"any": ["N18.4"]}}, {"conditions": ["N18"]}, False),
        ({"medications": {"any": ["anticoagulant"]}}, {"medications": ["Coumadin 5 mg"]}, True),
        ({"medications": {"any": ["warfarin"]}}, {"medications": {"known": ["ASA"], "complete": False}}, None),
        ({"medications": {"any": ["warfarin"]}}, {"medications": {"known": ["warfarin"], "complete": False}}, True),
        ({"lab": {"name": "Potassium", "above": "5.5 mmol/L"}}, {"labs": [LAB]}, True),
        ({"lab": {"name": "potassium", "above": "5500 umol/L"}}, {"labs": [LAB]}, True),
        ({"lab": {"name": "potassium", "above": "20 mg/dL"}}, {"labs": [LAB]}, None),
        ({"lab": {"name": "potassium", "above": "5.5 mmol/L", "not_older_than": "7 days"}}, {"labs": [LAB]}, None),
        (
            {"lab": {"name": "potassium", "above": "5.5 mmol/L", "not_older_than": "7 days"}},
            {"labs": [LAB], "as_of": "2026-11-01"},
            True,
        ),
        (
            {"lab": {"name": "potassium", "above": "5.5 mmol/L", "not_older_than": "7 days"}},
            {"labs": [LAB], "as_of": "2026-11-30"},
            None,
        ),
        (
            {"lab": {"name": "potassium", "above": "5.5 mmol/L"}},
            {"labs": [LAB, {**LAB, "value": 4, "date": "2026-10-31"}]},
            False,
        ),
        ({"lab": {"name": "potassium", "above": "5.5 mmol/L"}}, {"labs": [LAB, {**LAB, "value": 4}]}, None),
        ({"egfr": {"below": "60 mL/min/1.73m2"}}, {"egfr": {"value": 55, "unit": "mL/min/1.73m2"}}, True),
        (
            {"egfr": {"below": "75 mL/min/1.73m2"}},
            {"age": 55, "sex": "male", "labs": [{"name": "creatinine", "value": 1.2, "unit": "mg/dL"}]},
            True,
        ),
        (
            {"egfr": {"below": "60 mL/min", "formula": "cockcroft-gault"}},
            {"age": 65, "sex": "male", "weight": 70, "labs": [{"name": "creatinine", "value": 1.4, "unit": "mg/dL"}]},
            True,
        ),
        (
            {"egfr": {"below": "75 mL/min/1.73m2"}},
            {"age": 12, "sex": "male", "labs": [{"name": "creatinine", "value": 1.2, "unit": "mg/dL"}]},
            None,
        ),
        ({"not": {"pregnancy": True}}, {}, None),
        ({"all": [{"sex": "male"}, {"lactation": True}]}, {"sex": "female"}, False),
        ({"any": [{"sex": "male"}, {"lactation": True}]}, {"sex": "male"}, True),
    ],
)
def test_what_is_known_unknown_and_not(when: dict[str, Any], facts: dict[str, Any], expected: bool | None) -> None:
    assert truth(when, facts) is expected


WHENS = st.recursive(
    st.sampled_from(
        [
            {"medications": {"any": ["warfarin"]}},
            {"medications": {"any": ["NSAID"]}},
            {"allergies": {"any": ["aspirin"]}},
            {"conditions": {"any": ["N18"]}},
            {"sex": "female"},
            {"age": {"below": "18 years"}},
        ]
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=6,
)
FACTS = st.fixed_dictionaries(
    {},
    optional={
        "medications": st.lists(st.sampled_from(["Coumadin", "ASA", "Tylenol"]), max_size=2),
        "allergies": st.lists(st.sampled_from(["salsalate", "warfarin"]), max_size=1),
        "conditions": st.lists(st.sampled_from(["N18.4", "asthma"]), max_size=1),
        "sex": st.sampled_from(["female", "male"]),
        "age": st.integers(0, 40),
    },
)


def naive(when: dict[str, Any], facts: dict[str, Any]) -> int:
    """0 false, 1 unknown, 2 true, by a few lines that know this test's facts only."""
    ((name, value),) = when.items()
    if name == "all":
        return min(naive(part, facts) for part in value)
    if name == "any":
        return max(naive(part, facts) for part in value)
    if name == "not":
        return 2 - naive(value, facts)
    if name not in facts:
        return 1
    fact = facts[name]
    if name == "sex":
        return 2 * (fact == value)
    if name == "age":
        return 2 * (fact < 18)
    names = {"warfarin": {"Coumadin"}, "NSAID": {"ASA"}, "aspirin": {"salsalate"}, "N18": {"N18.4"}}
    return 2 * bool(names[value["any"][0]] & set(fact))


@settings(max_examples=300, deadline=None)
@given(st.lists(WHENS, min_size=1, max_size=4), FACTS)
def test_many_rules_together_hold_as_each_by_a_naive_reading(
    whens: list[dict[str, Any]], facts: dict[str, Any]
) -> None:
    rules = [rule(when, id=f"r{i}") for i, when in enumerate(whens)]
    found = {one.id: held for one, held in outcome(rules, facts).applied}
    for one, when in zip(rules, whens, strict=True):
        assert found.get(one.id, False) is {0: False, 1: None, 2: True}[naive(when, facts)]


def test_a_rule_may_say_otherwise_what_unknown_means() -> None:
    warned = outcome(rule({"sex": "male"}, on_unknown="warn"), None)
    assert warned.applied == ()
    assert warned.warnings == ("r@1: not applied, its condition is unknown",)
    assert outcome(rule({"sex": "male"}, on_unknown="block"), None, on_unknown="skip").applied


def test_an_entry_that_no_file_lists_can_make_a_list_unknown() -> None:
    when = {"medications": {"any": ["warfarin"]}}
    assert not outcome(rule(when), {"medications": ["warfarrin"]}).applied
    assert outcome(rule(when), {"medications": ["warfarrin"]}, unlisted="unknown").applied[0][1] is None


def test_status_jurisdiction_and_days_decide_whether_a_rule_is_used() -> None:
    unverified = rule(None, status="unverified", citation=None)
    assert not outcome(unverified, {}).applied
    assert outcome(unverified, {}, unverified=True).applied
    assert not outcome(rule(None, status="retired"), {}, unverified=True).applied
    french = rule(None, jurisdiction="FR")
    assert outcome(french, {}).applied
    assert not outcome(french, {}, jurisdictions=["US"]).applied
    dated = rule(None, valid={"since": "2020-01-01", "until": "2025-12-31"})
    assert outcome(dated, {"as_of": "2025-12-31"}).applied
    assert outcome(dated, {}).applied
    expired = outcome(dated, {"as_of": "2026-01-01"})
    assert not expired.applied
    assert "not valid on 2026-01-01" in expired.warnings[0]


def capped(most: str, per: str = "dose", route: str | None = None, **more: Any) -> Rule:
    cap = {"drug": "acetaminophen", "max": most, "per": per, **({"route": route} if route else {})}
    return rule(None, {"cap_dose": [cap]}, **more)


def test_the_lowest_cap_wins_and_names_every_rule() -> None:
    rules = [capped("1 g", id="a"), capped("650 mg", id="b"), capped("10 mg/kg", id="c"), capped("0.65 g", id="d")]
    (cap,) = outcome(rules, {"weight": 65}).caps
    assert (cap.rules, cap.beaten) == (("b@1", "c@1", "d@1"), ("a@1",))
    assert cap.amount is not None
    assert cap.amount.to("mg") == 650
    assert exceeds(quantity("650 mg"), cap) is False
    assert exceeds(quantity("650.000001 mg"), cap) is True
    assert exceeds(quantity("5 mL"), cap) is None


def test_caps_of_other_routes_and_of_a_day_stand_apart() -> None:
    rules = [capped("1 g", route="IV", id="a"), capped("4 g", "day", id="b"), capped("650 mg", route="PO", id="c")]
    assert [(c.route, c.per) for c in outcome(rules, {}).caps] == [("IV", "dose"), (None, "day"), ("PO", "dose")]


def test_a_cap_per_kilogram_without_a_weight_allows_no_dose() -> None:
    (cap,) = outcome(capped("10 mg/kg"), {}).caps
    assert cap.amount is None
    assert exceeds(quantity("1 mg"), cap) is None


def test_forbid_beats_cap() -> None:
    forbidding = rule(None, {"forbid": {"drugs": ["Tylenol"]}}, id="no")
    found = outcome([capped("1 g", id="a"), forbidding], {})
    assert found.caps == ()
    assert found.forbidden_drugs == ("acetaminophen",)


@pytest.mark.parametrize(
    ("asked", "severity", "aside", "said"),
    [
        ({"rule": "r@1", "by": "physician", "reason": "seen"}, "major", True, ""),
        ({"rule": "r@1", "by": "nurse", "reason": "seen"}, "major", False, "physician may"),
        ({"rule": "r@1", "by": "physician", "reason": "seen"}, "contraindicated", False, "no contraindicated rule"),
        ({"rule": "r@2", "by": "physician", "reason": "seen"}, "major", False, "no such rule"),
    ],
)
def test_an_override_needs_role_severity_and_version(
    asked: dict[str, str], severity: str, aside: bool, said: str
) -> None:
    found = outcome(rule(None, severity=severity, override={"by": ["physician"]}), {"overrides": [asked]})
    assert bool(found.applied) is not aside
    assert [o.reason for o in found.overridden] == ["seen"] * aside
    assert said in " ".join(found.warnings)


def test_a_proof_goes_from_the_facts_over_the_rule_to_what_follows() -> None:
    when = {"all": [{"medications": {"any": ["warfarin"]}}, {"not": {"age": {"below": "18 years"}}}]}
    (proof,) = outcome(rule(when), {"medications": ["Coumadin"], "age": 70}).proofs
    assert str(proof).splitlines() == [
        "r@1 (major) applies: true",
        "  all of: true",
        "    medications: any of warfarin: true (medications: 'Coumadin')",
        "    not: true",
        "      age < 18 years: false (age: 70 years)",
        "  so: forbids aspirin",
        "  so: source: Handbook: “As it says.”",
    ]
    tree = proof.as_dict()
    assert tree["because"][0]["because"][1]["because"][0] == {
        "claim": "age < 18 years",
        "truth": "false",
        "fact": "age: 70 years",
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("age", "old"),
        ("age", -1),
        ("age", True),
        ("weight", 0),
        ("weight", float("nan")),
        ("sex", 1),
        ("pregnancy", "yes"),
        ("labs", [{"name": "potassium", "value": 5}]),
        ("egfr", {"value": 5, "unit": "mL/min", "formula": "mdrd"}),
        ("as_of", "yesterday"),
        ("conditions", ["x", None]),
        ("allergies", {"known": ["x"]}),
        ("overrides", [{"rule": "r@1", "by": "physician"}]),
        ("overrides", [{"rule": "r@1", "by": "physician", "reason": " "}]),
    ],
)
def test_a_fact_that_cannot_be_read_stops(key: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"case-7: facts\.{key} is") as caught:
        patient_from({key: value}, "case-7")
    assert "leave it out" in caught.value.fix


def walk(automaton: RequiredPhrases, text: str) -> bool:
    state = automaton.start
    for byte in text.encode("utf-8", "surrogatepass"):
        state = int(automaton.row(state)[byte])
        assert state >= 0
    assert bool(automaton.explain(state, b"")) is not automaton.may_end(state)
    return automaton.may_end(state)


PHRASES = rule(None, {"require_phrase": [{"any": ["check the INR", "control INR"]}, {"any": ["in 3 days"]}]})


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("Check the INR in 3 days", True),
        ("In 3 days: control  INR!", True),
        ("check the\nＩＮＲ, in-3-days.", True),
        ("check the INRs in 3 days", False),
        ("recheck the INR in 3 days", False),
        ("check INR in 3 days", False),
        ("check the INR", False),
        ("", False),
        ("Check the INR in 3 days" + " and eat" * 50, True),
    ],
)
def test_a_text_may_end_only_when_every_phrase_stands(text: str, ends: bool) -> None:
    automaton = RequiredPhrases(outcome(PHRASES, {}).phrases)
    assert walk(automaton, text) is ends


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["check", "the", "inr", "control", "in", "3", "days", "é", "-", "\u200b", "x"]), max_size=12
    )
)
def test_phrases_are_found_as_a_search_over_words_finds_them(parts: list[str]) -> None:
    text = " ".join(parts)
    words = f" {' '.join(p for p in parts if p.isalnum()).replace('é', 'e')} "
    expected = (" check the inr " in words or " control inr " in words) and " in 3 days " in words
    assert walk(RequiredPhrases(outcome(PHRASES, {}).phrases), text) is expected


def test_a_hierarchy_is_read_beside_the_rule_file(tmp_path: Path) -> None:
    lines = tmp_path / "icd.tsv"
    lines.write_text("# child, parent\nN18.4\tN18\n\nN18\tkidney disease\n", encoding="utf-8")
    one = json.loads(
        rule({"conditions": {"any": ["kidney disease"]}}).model_dump_json(exclude_none=True, exclude_unset=True)
    )
    book = {"version": 2, "drugs": [{"name": "aspirin"}], "hierarchy": {"file": "icd.tsv"}, "rules": [one]}
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(book), encoding="utf-8")
    assert Engine(load([path])).evaluate(patient_from({"conditions": ["n18.4"]}, "test")).applied
    assert input_files([path]) == [path, lines]
    lines.write_text("N18.4 N18\n", encoding="utf-8")
    assert read([path])[1][0].where == f"{lines}:1"
    lines.unlink()
    assert "no readable hierarchy" in read([path])[1][0].found
