"""Rule files: what is read, who is meant, and every mistake named with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from r1core_clinical_rules.engine import Engine
from r1core_clinical_rules.facts import patient_from
from r1core_clinical_rules.outcome import Outcome
from r1core_clinical_rules.reading import load, read
from r1core_clinical_rules.schema import Policy

from r1core.api import UserError


def outcome(path: Path, medications: list[str] | None, on_unknown: str = "block") -> Outcome:
    engine = Engine(load([path]), Policy.model_validate({"on_unknown": on_unknown}))
    return engine.evaluate(patient_from({"medications": medications}, "test"))


def applicable(path: Path, medications: list[str] | None, on_unknown: str = "block") -> list[str]:
    return [rule.id for rule, _ in outcome(path, medications, on_unknown).applied]


@pytest.mark.parametrize("fact", ["warfarin", "COUMADIN", "Coumadin® 5 mg tablet", "wаrfarin", "an anticoagulant"])
def test_a_fact_is_known_by_drug_brand_or_class(rule_file: Path, fact: str) -> None:
    assert applicable(rule_file, ["isotretinoin", fact]) == ["anticoagulant-nsaid", "never-isotretinoin"]


def test_known_and_without_the_drug_only_the_unconditional_rule_applies(rule_file: Path) -> None:
    assert applicable(rule_file, []) == applicable(rule_file, ["ASA", "metformin"]) == ["never-isotretinoin"]


def test_unknown_is_never_taken_for_safe(rule_file: Path) -> None:
    assert applicable(rule_file, None) == ["anticoagulant-nsaid", "never-isotretinoin"]
    assert applicable(rule_file, None, "warn") == applicable(rule_file, None, "skip") == ["never-isotretinoin"]


def test_an_entry_that_no_file_lists_is_told(rule_file: Path) -> None:
    assert outcome(rule_file, ["metformin"]).warnings == ("medications: no rule file lists 'metformin'",)


def test_a_class_forbids_every_name_of_its_drugs(rule_file: Path) -> None:
    names = outcome(rule_file, None).forbidden
    assert set(names) == {
        "aspirin",
        "Bayer Aspirin",
        "ASA",
        "acetylsalicylic acid",
        "ibuprofen",
        "Advil",
        "isotretinoin",
    }
    assert names["Advil"][0].rule == "anticoagulant-nsaid@2"
    assert names["Advil"][0].citation == "Handbook, p. 12: “Avoid together.”"
    assert names["Advil"][0].severity == "major"


@pytest.mark.parametrize(
    ("old", "new", "line", "found", "fix"),
    [
        ("severity: major", "severity: grave", 18, "'grave' in `rules.0.severity`", "correct"),
        ("    title: No NSAID on an anticoagulant\n", "", 15, "no `rules.0.title`", "add `title"),
        ("severity: major", "severity: major\n    sevirity: minor", 19, "unknown key `rules.0.sevirity`", "remove"),
        ("severity: major", "severity: major\n    severity: minor", 19, "`severity` twice", "remove"),
        (
            "any: [anticoagulant]",
            "any: [anticoagulent]",
            15,
            "unknown drug or class 'anticoagulent'",
            "'anticoagulant'",
        ),
        ("any: [anticoagulant]", "any: []", 21, "in `rules.0.when.medications.any`", "correct"),
        ("{classes: [NSAID]}", "{classes: [opioid]}", 15, "unknown class 'opioid'", "under `drugs`"),
        ("{drugs: [isotretinoin]}", "{drugs: [isotretinoim]}", 23, "unknown drug 'isotretinoim'", "'isotretinoin'"),
        ("{drugs: [isotretinoin]}", "{}", 23, "forbids nothing", "name a drug"),
        ("id: never-isotretinoin", "id: anticoagulant-nsaid", 23, "'anticoagulant-nsaid' again", "remove"),
        ("name: ibuprofen", "name: Aspirin", 10, "the drug 'Aspirin' again", "remove"),
        ("[Advil]", "[A-d]", 10, "'A-d', too short", "remove 'A-d'"),
        ("classes: [anticoagulant]", "classes: [Advil]", 3, "both as a class and as a drug", "rename"),
        ("[Advil]", "[Advil", 12, "broken YAML", "mend"),
        ("version: 2\ndrugs", "version: 3\ndrugs", 1, "3 in `version`", "correct"),
        ("version: 2\ndrugs", "version: 1\ndrugs", 1, "a file of version 1", "From version 1"),
        ("{medications: {any: [anticoagulant]}}", "{age: {below: 18 parsec}}", 21, "'18 parsec' in", "correct"),
        ("{medications: {any: [anticoagulant]}}", "{age: {below: 18 kg}}", 21, "in `rules.0.when`", "correct"),
        ("{medications: {any: [anticoagulant]}}", "{sex: male, lactation: true}", 21, "in `rules.0.when`", "correct"),
        ("{medications: {any: [anticoagulant]}}", "{allergies: {any: [milk]}}", 15, "allergen 'milk'", "under `drugs`"),
        ("{drugs: [isotretinoin]}}", "{drugs: [isotretinoin]}, require_phrase: [{any: [INR]}]}", 23, "'INR'", "more"),
        ("{forbid: {classes: [NSAID]}}", "{cap_dose: [{drug: ASA, max: 4 g/day, per: day}]}", 22, "in `r", "correct"),
        (", quote: Avoid together.}", "}", 15, "in `rules.0`", "correct"),
        ("name: ibuprofen", "name: no", 10, "False in `drugs.2.name`", "correct"),
    ],
)
def test_every_mistake_names_file_line_and_fix(
    rule_file: Path, old: str, new: str, line: int, found: str, fix: str
) -> None:
    text = rule_file.read_text(encoding="utf-8")
    assert text.count(old) == 1
    rule_file.write_text(text.replace(old, new), encoding="utf-8")
    problems = read([rule_file])[1]
    matching = [p for p in problems if found in p.found]
    assert matching, problems
    assert matching[0].where.split(" ")[0] == f"{rule_file}:{line}"
    assert fix in matching[0].fix
    with pytest.raises(UserError, match="clinical rules: "):
        load([rule_file])


def test_all_mistakes_of_all_files_are_told_at_once(rule_file: Path, tmp_path: Path) -> None:
    text = rule_file.read_text(encoding="utf-8")
    rule_file.write_text(
        text.replace("severity: major", "severity: grave").replace("version: 2\n    title", "version: [2]\n    title")
    )
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"version: 2 # caf\xe9")
    problems = read([rule_file, latin, tmp_path / "absent.yaml"])[1]
    places = [(p.where, p.found) for p in problems]
    assert len({where for where, _ in places}) == 4
    assert any("not UTF-8" in found for _, found in places)
    assert any("No such file" in found for _, found in places)


def test_drugs_are_shared_between_files(rule_file: Path, tmp_path: Path) -> None:
    text = rule_file.read_text(encoding="utf-8")
    at = text.index("rules:")
    drugs, rules = tmp_path / "drugs.yaml", tmp_path / "only_rules.yaml"
    drugs.write_text(text[:at], encoding="utf-8")
    rules.write_text("version: 2\n" + text[at:], encoding="utf-8")
    assert len(load([drugs, rules]).rules) == 2
    assert "unknown class 'NSAID'" in " ".join(p.found for p in read([rules])[1])


def test_an_empty_file_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert read([path])[1][0].where == f"{path}:1"


def test_a_merged_default_that_is_overridden_is_no_key_given_twice(tmp_path: Path) -> None:
    file = tmp_path / "merged.yaml"
    file.write_text("base: &base {severity: major}\nother:\n  <<: *base\n  severity: minor\n")
    _, problems = read([file])
    assert not [p for p in problems if "twice" in p.found]
