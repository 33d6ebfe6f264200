"""Warnings for free text, by the API, the verb and the annotator that turns orders into facts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from r1core_clinical_rules.annotator import OrderAnnotator, extended
from r1core_clinical_rules.cli import rules
from r1core_clinical_rules.engine import Engine
from r1core_clinical_rules.interactions import InteractionWarning, Warner
from r1core_clinical_rules.medications import Recogniser
from r1core_clinical_rules.plugin import outcome_of
from r1core_clinical_rules.reading import load
from r1core_clinical_rules.schema import Config

from r1core.api import Example, Message

CITED = 'status: active, version: 1, citation: {title: Handbook, locator: p. 12, quote: "Avoid."}'
RULES = f"""\
version: 2
drugs:
  - {{name: warfarin, brands: [Coumadin], classes: [anticoagulant]}}
  - {{name: ibuprofen, brands: [Advil], classes: [nsaid]}}
  - {{name: aspirin, aliases: [ASA], classes: [nsaid]}}
  - {{name: lithium}}
  - {{name: ketorolac, classes: [nsaid]}}
  - {{name: amoxicillin, cross_reactivity: [penicillins]}}
  - {{name: digoxin}}
allergens: [{{name: penicillin, cross_reactivity: [penicillins]}}]
rules:
  - {{id: bleeding, title: t, severity: major, {CITED},
     when: {{medications: {{any: [anticoagulant]}}}}, then: {{forbid: {{classes: [nsaid]}}}}}}
  - {{id: worse, title: t, severity: contraindicated, {CITED},
     when: {{medications: {{any: [lithium]}}}}, then: {{forbid: {{drugs: [ketorolac]}}}}}}
  - {{id: look, title: t, severity: moderate, {CITED},
     when: {{all: [{{medications: {{any: [lithium]}}}}, {{medications: {{any: [digoxin]}}}}]}},
     then: {{require_check: [level of lithium]}}}}
  - {{id: allergic, title: t, severity: contraindicated, {CITED},
     when: {{allergies: {{any: [penicillin]}}}}, then: {{forbid: {{drugs: [amoxicillin]}}}}}}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("warn") / "rules.yaml"
    path.write_text(RULES, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def warner(path: Path) -> Warner:
    engine = Engine(load([path]))
    return Warner(engine, Recogniser(engine.book))


def shown(warnings: list[InteractionWarning]) -> list[str]:
    return [f"{'+'.join(sorted(m.name for m in w.medications))}: {' '.join(c.rule for c in w.rules)}" for w in warnings]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("start coumadn 5 mg daily; pt takes Advil 400 tid", ["ibuprofen+warfarin: bleeding@1"]),
        ("On Coumadin and warfarin, no NSAIDs", []),
        ("Not on warfarin. Takes ibuprofen.", []),
        ("an NSAID for the knee, and a blod anticoagulant", ["anticoagulant+nsaid: bleeding@1"]),
        ("lithium with an NSAID", []),  # of the class only ketorolac would
        ("lithium 300 mg, ketorolac; digoxin", ["ketorolac+lithium: worse@1", "digoxin+lithium: look@1"]),
        ("on lithium, stopped digoxin", []),
        ("allergic to penicillin. Start amoxicillin 500 mg tid", ["amoxicillin: allergic@1"]),
        ("On warfarin. Can I give ASA or Advil?", ["aspirin+warfarin: bleeding@1", "ibuprofen+warfarin: bleeding@1"]),
        ("Could he take warfarin or aspirin?", []),  # neither is taken
        ("Aspirin was given in 2019. Mother is on warfarin.", []),
        ("", []),
    ],
)  # fmt: skip
def test_warnings_of_one_text(warner: Warner, text: str, expected: list[str]) -> None:
    assert sorted(shown(warner.warn(text))) == sorted(expected)


def test_texts_and_facts_count_together_the_gravest_first(warner: Warner) -> None:
    found = warner.warn(["takes ketorolac", "and digoxin"], {"medications": ["lithium carbonate", "Coumadin"]})
    assert shown(found) == ["ketorolac+lithium carbonate: worse@1", "Coumadin+ketorolac: bleeding@1",
                            "digoxin+lithium carbonate: look@1"]  # fmt: skip
    (part, order), *_ = found[2].medications[0].orders
    assert (part, order.mention.text) == (1, "digoxin")


def test_an_uncertain_reading_is_told(warner: Warner) -> None:
    (found,) = warner.warn("coumadn and ibuprofen")
    assert not found.certain
    assert found.medications[0].reading == "read 'coumadn' as Coumadin (warfarin)"
    assert found.rules[0].citation.startswith("Handbook")
    assert found.severity == "major"
    assert json.loads(json.dumps(found.as_dict()))["medications"][0]["mentions"][0]["start"] == 0


def test_the_verb_reads_a_file_or_standard_input(path: Path, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("start coumadn 5 mg daily", encoding="utf-8")
    facts = tmp_path / "facts.json"
    facts.write_text('{"medications": ["Advil"]}', encoding="utf-8")
    done = CliRunner().invoke(rules, ["warn", str(path), str(note), "--facts", str(facts)])
    assert done.exit_code == 1
    assert "major, uncertain: warfarin with Advil" in done.output
    assert "read 'coumadn' as Coumadin (warfarin)" in done.output
    assert "bleeding@1 (major)" in done.output
    done = CliRunner().invoke(rules, ["warn", str(path), "--json"], input="Not on warfarin. Takes Advil 400 mg tid.")
    said = json.loads(done.output)
    assert done.exit_code == 0
    assert said["warnings"] == []
    assert [(o["drugs"], o["status"]) for o in said["orders"]] == [(["warfarin"], "denied"), (["ibuprofen"], "current")]


def test_the_verb_tells_of_a_drug_that_it_does_not_know(path: Path) -> None:
    done = CliRunner().invoke(rules, ["warn", str(path)], input="Takes Advil. Start Xyzolam 5 mg daily.")
    assert done.exit_code == 1  # nothing found, and not all read
    assert "not recognised: 'Xyzolam' at 19-26" in done.output
    done = CliRunner().invoke(rules, ["warn", str(path), "--json"], input="Start Xyzolam 5 mg daily.")
    assert json.loads(done.output)["unread"] == [{"start": 6, "end": 13, "text": "Xyzolam"}]


def example(text: str, **facts: object) -> Example:
    return Example("1", (Message("user", text), Message("assistant", "Take aspirin.")), "t", facts=facts or None)


def test_orders_in_a_prompt_reach_the_rules(path: Path) -> None:
    annotator = OrderAnnotator(Config(files=(path,)))
    engine = Engine(load([path]))
    made = annotator(example("Takes coumadn. Stopped lithium. Allergic to penicillin."))
    assert made.facts == {
        "medications": {"known": ["warfarin"], "complete": False},
        "allergies": {"known": ["penicillin"], "complete": False},
    }
    forbidden = {rule.id for rule, truth in outcome_of(engine, made).applied if truth}
    assert forbidden == {"bleeding", "allergic"}
    assert [(s.start, s.end, s.value["status"]) for s in made.spans] == [
        (6, 13, "current"), (23, 30, "stopped"), (44, 54, "allergy")
    ]  # fmt: skip
    assert annotator(made) == made  # once is enough, and the answer is not read


def test_facts_are_added_to_and_never_replaced(path: Path) -> None:
    annotator = OrderAnnotator(Config(files=(path,)))
    assert annotator(example("Hello.")).facts is None
    made = annotator(example("Start warfarin.", medications=["lithium"], age=70))
    assert made.facts == {"medications": ["lithium", "warfarin"], "age": 70}
    assert extended({"known": ["a"], "complete": True}, [("a",), ("b", "c")]) == {
        "known": ["a", {"name": "b", "names": ["c"]}], "complete": True
    }  # fmt: skip


def test_the_annotator_runs_where_the_recipe_asks_for_it(path: Path) -> None:
    from r1core_clinical_rules.plugin import ClinicalRulesPlugin

    from r1core.api import Context

    names = path.with_name("names.txt")
    names.write_text("hydroxyzine\tatarax\n", encoding="utf-8")
    plain, asked = Config(files=(path,)), Config(files=(path,), read_orders=True, names=(names,))
    plugin = ClinicalRulesPlugin()
    contexts = [Context(domain=None, config=config, seed=0) for config in (plain, asked)]
    assert list(plugin.preprocess(ctx=contexts[0])) == []
    (step,) = plugin.preprocess(ctx=contexts[1])
    before = step.fingerprint()
    names.write_text("hydroxyzine\n", encoding="utf-8")
    assert step.fingerprint() != before
    assert names in step.input_files()
