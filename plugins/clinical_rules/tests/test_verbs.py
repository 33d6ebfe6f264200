"""`r1core rules`: test, lint, explain, audit, schema and fhir, as a user calls them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from r1core_clinical_rules.cli import rules, schema_text
from r1core_clinical_rules.fhir import facts_from_bundle
from r1core_clinical_rules.lint import lint
from r1core_clinical_rules.reading import load

from r1core.api import UserError


def run(*arguments: object) -> Result:
    return CliRunner().invoke(rules, [str(a) for a in arguments])


CITED = '{title: Handbook, url: "https://example.org", date: 2020-01-01, quote: As it says.}'


def book(tmp_path: Path, *made: str) -> Path:
    head = "version: 2\ndrugs: [{name: warfarin, classes: [thinner]}, {name: aspirin}, {name: ibuprofen}]\nrules:\n"
    base = f"status: active, title: T, severity: major, citation: {CITED}"
    path = tmp_path / "rules.yaml"
    path.write_text(head + "".join(f"- {{id: r{i}, version: 1, {base}, {one}}}\n" for i, one in enumerate(made)))
    return path


ON = "{facts: {medications: [warfarin]}, expect: {applies: true}}"
OFF = "{facts: {medications: []}, expect: {applies: false}}"
CASES = f"cases: [{ON}, {OFF}]"
NO_ASPIRIN = "then: {forbid: {drugs: [aspirin]}}"
AGED = "{age: {at_least: 2 years}}"
CAP = "then: {cap_dose: [{drug: aspirin, max: 1 g, per: dose}]}"
WARFARIN = "when: {medications: {any: [warfarin]}}"


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ("{applies: true, forbids: [aspirin], allows: [ibuprofen], finds: [take aspirin], passes: [take rest]}", ""),
        ("{applies: false}", "applies, expected the opposite"),
        ("{applies: true, unknown: true}", "is known"),
        ("{applies: true, forbids: [ibuprofen]}", "does not forbid 'ibuprofen'"),
        ("{applies: true, allows: [aspirin]}", "forbids 'aspirin'"),
        ("{applies: true, caps: {ibuprofen: 1 g}}", "caps ibuprofen at nothing"),
        ("{applies: true, finds: [take rest]}", "finds nothing in 'take rest'"),
        ("{applies: true, passes: [take aspirin]}", "finds forbidden_name in 'take aspirin'"),
    ],
)
def test_cases_are_run_and_a_difference_is_told(tmp_path: Path, expect: str, said: str) -> None:
    case = f"cases: [{{facts: {{medications: [warfarin]}}, expect: {expect}}}]"
    done = run("test", book(tmp_path, f"{WARFARIN}, {NO_ASPIRIN}, {case}"))
    assert done.exit_code == (1 if said else 0)
    assert said in done.output
    assert f"1 cases, {int(bool(said))} failed; 0 rules without cases" in done.output


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([f"when: {{all: [{AGED}, {{age: {{below: 24 months}}}}]}}, {NO_ASPIRIN}"], "never hold"),
        ([f"when: {{all: [{{not: {AGED}}}, {{age: {{above: 3 years}}}}]}}, {NO_ASPIRIN}"], "never hold"),
        ([f"when: {{all: [{{sex: male}}, {{sex: female}}]}}, {NO_ASPIRIN}"], "never hold"),
        ([f"when: {{all: [{{sex: male}}, {{not: {{sex: male}}}}]}}, {NO_ASPIRIN}"], "never hold"),
        ([f"when: {{all: [{{not: {{sex: male}}}}, {{any: [{{sex: male}}]}}]}}, {NO_ASPIRIN}"], "never hold"),
        ([f"{WARFARIN}, {NO_ASPIRIN}", f"when: {{medications: {{any: [thinner]}}}}, {NO_ASPIRIN}"], "shadowed by r0@1"),
        ([f"{WARFARIN}, {NO_ASPIRIN}", "then: {forbid: {drugs: [aspirin, ibuprofen]}}"], "shadowed by r1@1"),
        ([CAP, CAP.replace("1 g", "500 mg")], "r1@1 always undercuts"),
        ([f"{CAP[:-1]}, forbid: {{drugs: [aspirin]}}}}"], "the same rule forbids"),
        (["then: {require_phrase: [{any: [take no aspirin]}]}", NO_ASPIRIN], "r1@1 forbids"),
        (["when: {conditions: {any: [gout]}}, then: {forbid: {drugs: [aspirin]}}"], "which no hierarchy holds"),
        (["on_unknown: skip, then: {forbid: {drugs: [aspirin]}}"], "unknown is not safe"),
        (["valid: {until: 2020-01-01}, then: {forbid: {drugs: [aspirin]}}"], "valid until 2020-01-01"),
        ([f"{WARFARIN}, {NO_ASPIRIN}"], "no cases"),
    ],
)  # fmt: skip
def test_lint_says_what_is_wrong_although_valid(tmp_path: Path, made: list[str], said: str) -> None:
    done = run("lint", book(tmp_path, *made), "--today", "2026-01-01")
    assert said in done.output
    assert done.exit_code == int("never hold" in said or "the same rule" in said)


def test_lint_finds_a_citation_that_nobody_can_look_up(tmp_path: Path) -> None:
    path = book(tmp_path, f"{WARFARIN}, {NO_ASPIRIN}, {CASES}")
    assert lint(load([path])) == []
    path.write_text(path.read_text().replace(CITED, "{title: Handbook, quote: As it says.}"))
    found = " ".join(p.found for p in lint(load([path])))
    assert "nobody can look up" in found
    assert "without a date" in found
    assert run("lint", path).exit_code == 1


def test_explain_shows_proofs_and_what_does_not_apply(tmp_path: Path) -> None:
    path = book(
        tmp_path,
        f"{WARFARIN}, {NO_ASPIRIN}",
        "when: {sex: male}, then: {require_check: [Look]}",
    )
    facts = tmp_path / "facts.json"
    facts.write_text('{"medications": ["warfarin"], "sex": "female"}')
    shown = run("explain", path, "--facts", facts).output
    assert "medications: any of warfarin: true (medications: 'warfarin')" in shown
    assert "forbidden: aspirin (1 names)" in shown
    assert "r1@1" not in shown
    assert "sex is male: false (sex: female)" in run("explain", path, "--facts", facts, "--every").output
    data = json.loads(run("explain", path, "--json").output)
    assert [one["truth"] for one in data["applied"]] == ["unknown", "unknown"]
    assert data["checks"] == [{"check": "Look", "rule": "r1@1"}]


def test_audit_exits_with_1_when_it_finds_something(tmp_path: Path) -> None:
    path = book(tmp_path, "then: {forbid: {drugs: [aspirin]}}")
    found = run("audit", path, "Take asp-irin")
    assert found.exit_code == 1
    assert "forbidden_name at 5-13 'asp-irin': r0@1" in found.output
    clean = run("audit", path, "Rest", "--json")
    assert (clean.exit_code, json.loads(clean.output)["findings"]) == (0, [])


def test_the_readme_s_rule_file_is_valid_and_its_cases_hold(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    path = tmp_path / "rules.yaml"
    path.write_text(shown, encoding="utf-8")
    assert run("check", path).exit_code == 0
    assert "2 cases, 0 failed" in run("test", path).output
    (facts,) = re.findall(r"```json\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "facts.json").write_text(facts, encoding="utf-8")
    assert "forbidden: aspirin" in run("explain", path, "--facts", tmp_path / "facts.json").output


def test_the_schema_that_ships_is_the_one_that_is_printed() -> None:
    shipped = Path(schema_text.__code__.co_filename).with_name("rule_file.schema.json").read_text(encoding="utf-8")
    assert run("schema").output == shipped
    properties = json.loads(shipped)["properties"]
    assert {"version", "drugs", "classes", "allergens", "hierarchy", "rules"} == set(properties)


def concept(*names: str, **coding: str) -> dict[str, Any]:
    return {"text": names[0] if names else None, "coding": [coding] if coding else []}


def bundle(*resources: dict[str, Any]) -> dict[str, Any]:
    patient = {"resourceType": "Patient", "id": "p", "birthDate": "1956-03-01", "gender": "female"}
    entries = [{"resource": one} for one in (patient, *resources)]
    return {"resourceType": "Bundle", "timestamp": "2026-11-01T10:00:00Z", "entry": entries}


def observation(code: dict[str, Any], value: Any, unit: str, **more: Any) -> dict[str, Any]:
    quantity = {"value": value, "unit": unit}
    return {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": code,
        "valueQuantity": quantity,
        **more,
    }


WARFARIN_TAKEN = {"resourceType": "MedicationStatement", "id": "m", "status": "active",
                  "medicationCodeableConcept": concept("Warfarin 5 mg", display="Coumadin", code="11289")}  # fmt: skip


def test_a_bundle_becomes_facts(tmp_path: Path) -> None:
    weight = observation(concept(system="http://loinc.org", code="29463-7"), 62.5, "kg", effectiveDateTime="2026-10-01")
    creatinine = observation(
        concept(display="Creatinine [Mass/volume] in Serum or Plasma"), 1.2, "mg/dL", effectiveDateTime="2026-10-02"
    )
    rate = observation(
        concept(display="Glomerular filtration rate by creatinine (CKD-EPI 2021)"), 49, "mL/min/{1.73_m2}"
    )
    pregnancy = {"resourceType": "Observation", "id": "g", "status": "final", "code": concept("Pregnancy status"),
                 "valueCodeableConcept": concept(system="http://loinc.org", code="LA26683-5")}  # fmt: skip
    request = {"resourceType": "MedicationRequest", "status": "active", "medicationReference": {"reference": "#x"},
               "contained": [{"id": "x", "code": concept("Advil")}]}  # fmt: skip
    allergy = {
        "resourceType": "AllergyIntolerance",
        "code": concept("Penicillin"),
        "patient": {"reference": "Patient/p"},
    }
    condition = {"resourceType": "Condition", "code": concept("CKD", code="N18.4")}
    resources = (weight, creatinine, rate, pregnancy, WARFARIN_TAKEN, request, allergy, condition)
    file = tmp_path / "bundle.json"
    file.write_text(json.dumps(bundle(*resources)))
    facts = json.loads(run("fhir", file, "--complete", "medications").stdout)
    assert facts["as_of"] == "2026-11-01"
    assert (facts["birth_date"], facts["sex"], facts["weight"], facts["pregnancy"]) == (
        "1956-03-01",
        "female",
        "62.5 kg",
        False,
    )
    assert facts["medications"]["complete"] is True
    assert [entry["names"][0] for entry in facts["medications"]["known"]] == ["Warfarin 5 mg", "Advil"]
    assert facts["allergies"] == {"known": [{"names": ["Penicillin"]}], "complete": False}
    assert facts["conditions"]["known"] == [{"names": ["CKD", "N18.4"]}]
    assert facts["labs"] == [{"name": "creatinine", "value": "1.2", "unit": "mg/dL", "date": "2026-10-02"}]
    assert facts["egfr"][0]["formula"] == "ckd-epi-2021"


@pytest.mark.parametrize(
    ("resource", "known", "complete", "note"),
    [
        ({**WARFARIN_TAKEN, "status": "stopped"}, 0, True, "not counted"),
        ({**WARFARIN_TAKEN, "status": "unknown"}, 1, True, ""),
        ({**WARFARIN_TAKEN, "medicationCodeableConcept": {}}, 0, False, "not read (it names nothing)"),
        (
            {"resourceType": "MedicationRequest", "medicationReference": {"reference": "Medication/9"}},
            0,
            False,
            "not complete",
        ),
    ],
)
def test_what_cannot_be_read_is_unknown_never_absent(
    resource: dict[str, Any], known: int, complete: bool, note: str
) -> None:
    facts, notes = facts_from_bundle(bundle(resource), ["medications"])
    assert len(facts["medications"]["known"]) == known
    assert facts["medications"]["complete"] is complete
    assert note in " ".join(notes)


@pytest.mark.parametrize(
    ("resource", "note"),
    [
        (observation(concept("potassium"), 5, "mmol/L", status="preliminary"), "status 'preliminary'"),
        (observation(concept("potassium"), 5, "blobs"), "unknown unit 'blobs'"),
        (
            {"resourceType": "Observation", "id": "o", "status": "final", "code": concept("x"), "valueString": "high"},
            "no numeric",
        ),
        ({"resourceType": "Procedure"}, "Procedure: 1 left out"),
    ],
)
def test_what_is_left_out_is_told(resource: dict[str, Any], note: str) -> None:
    facts, notes = facts_from_bundle(bundle(resource))
    assert "labs" not in facts
    assert note in " ".join(notes)


def test_two_weights_of_one_day_leave_it_unknown() -> None:
    code = concept("Body weight")
    facts, notes = facts_from_bundle(bundle(observation(code, 60, "kg"), observation(code, 70, "kg")))
    assert "weight" not in facts
    assert "cannot be ordered" in " ".join(notes)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"resourceType": "Patient"},
        {"resourceType": "Bundle"},
        bundle({"resourceType": "Patient", "id": "q"}),
        bundle({"resourceType": "Condition", "subject": {"reference": "Patient/q"}, "code": concept("gout")}),
    ],
)
def test_a_bundle_of_nobody_or_of_two_is_refused(wrong: Any) -> None:
    with pytest.raises(UserError):
        facts_from_bundle(wrong)
