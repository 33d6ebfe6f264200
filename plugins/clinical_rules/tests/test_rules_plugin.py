"""The plugin's hooks and its verb, as the core and a user call them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from r1core_clinical_rules.cli import rules
from r1core_clinical_rules.plugin import ClinicalRulesPlugin
from r1core_clinical_rules.schema import Config

from r1core import api
from r1core.decode.constraints import Request, allowed_bool
from r1core.decode.vocabulary import Vocabulary
from r1core.testing.tiny import tiny_tokenizer

VOCABULARY = Vocabulary.from_tokenizer(tiny_tokenizer())


def constraint(path: Path, on_unknown: str = "block") -> api.DecodeConstraint:
    config = Config.model_validate({"files": [str(path)], "on_unknown": on_unknown})
    return ClinicalRulesPlugin().decode_constraint(api.Context("", config, seed=0))[0]


def start(made: api.DecodeConstraint, facts: dict[str, Any] | None) -> api.ConstraintState | None:
    return made.start(Request(api.Example("case-7", (), "task", facts=facts), VOCABULARY))


def generate(state: api.ConstraintState, text: str) -> tuple[str, tuple[api.Reason, ...]]:
    """Follow the mask byte by byte; return what got out and why it stopped."""
    out = b""
    for byte in text.encode():
        token = VOCABULARY.token_bytes.index(bytes([byte]))
        if not allowed_bool(state.mask(), VOCABULARY.size)[token]:
            return out.decode("utf-8", "replace"), state.explain(token)
        out, state = out + bytes([byte]), state.advance(token)
    return out.decode(), ()


def test_the_constraint_is_what_the_core_expects(rule_file: Path) -> None:
    made = constraint(rule_file)
    assert isinstance(made, api.DecodeConstraint)
    assert made.name == "clinical_rules/forbid"


def test_a_forbidden_brand_stops_with_its_rule_and_citation(rule_file: Path) -> None:
    state = start(constraint(rule_file), {"medications": ["Coumadin"]})
    assert state is not None
    out, reasons = generate(state, "Take Ad-vil now")
    assert out == "Take Ad-vi"
    assert reasons == (api.Reason("anticoagulant-nsaid@2", "Handbook, p. 12: “Avoid together.”", "Advil", "major"),)


def test_the_same_brand_passes_for_a_patient_without_the_drug(rule_file: Path) -> None:
    state = start(constraint(rule_file), {"medications": []})
    assert state is not None
    assert generate(state, "Take Advil now")[0] == "Take Advil now"
    assert generate(state, "isotretinoin")[0] == "isotretinoi"


@pytest.mark.parametrize("facts", [None, {}, {"medications": None}, {"age": 70}])
def test_unknown_medications_block(rule_file: Path, facts: dict[str, Any] | None) -> None:
    state = start(constraint(rule_file), facts)
    assert state is not None
    assert generate(state, "Advil")[0] == "Advi"


def test_warn_says_what_was_not_applied(rule_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        state = start(constraint(rule_file, "warn"), None)
    assert state is not None
    assert generate(state, "Advil")[0] == "Advil"
    assert "example case-7: anticoagulant-nsaid@2: not applied, its condition is unknown" in caplog.text


def test_no_applicable_rule_means_no_state(tmp_path: Path, rule_file: Path) -> None:
    text = rule_file.read_text(encoding="utf-8")
    rule_file.write_text(text[: text.index("  - id: never")], encoding="utf-8")
    assert start(constraint(rule_file), {"medications": []}) is None


@pytest.mark.parametrize("medications", ["warfarin", [1], {"warfarin": True}])
def test_unreadable_facts_stop(rule_file: Path, medications: object) -> None:
    with pytest.raises(api.UserError, match=r"case-7: facts\.medications"):
        start(constraint(rule_file), {"medications": medications})


def test_equal_rules_share_masks_and_other_rules_do_not(rule_file: Path) -> None:
    made = constraint(rule_file)
    first, second = (start(made, {"medications": [m]}) for m in ("warfarin", "Jantoven"))
    other = start(made, {"medications": []})
    assert first is not None
    assert second is not None
    assert other is not None
    assert first.mask() is second.mask()
    assert first.key == second.key != other.key


def test_a_finished_answer_is_rechecked_for_names_doses_and_phrases(rule_file: Path) -> None:
    cap = """\
  - id: warfarin-cap
    version: 1
    title: At most 10 mg
    severity: major
    status: active
    citation: {title: Handbook, locator: p. 3, quote: Never more than ten.}
    then:
      cap_dose: [{drug: warfarin, per: dose, max: 10 mg}]
      require_phrase: [{any: [check the INR]}]
"""
    rule_file.write_text(rule_file.read_text() + cap)
    config = Config.model_validate({"files": [str(rule_file)]})
    forbid, require = ClinicalRulesPlugin().decode_constraint(api.Context("", config, seed=0))
    asked = api.Example("case-7", (), "task", facts={"medications": ["Coumadin"]})
    assert set(forbid.rules(asked)) == {"anticoagulant-nsaid", "never-isotretinoin", "warfarin-cap"}
    for made in (forbid, require):
        assert made.recheck(asked, "Warfarin 5 mg; check the INR.") == []
    text = "Take A\u00addvil and warfarin 12.5 mg."
    stands, lacks = forbid.recheck(asked, text), require.recheck(asked, text)
    assert {reason.rule.partition("@")[0] for reason in stands} == {"anticoagulant-nsaid", "warfarin-cap"}
    assert any("12.5" in reason.text + reason.citation for reason in stands)
    assert [(reason.rule.partition("@")[0], reason.text) for reason in lacks] == [("warfarin-cap", "check the INR")]
    assert (forbid.requires, require.requires) == (False, True)
    spoons = forbid.recheck(asked, "Check the INR; warfarin 5 spoons")
    assert [reason.rule.partition("@")[0] for reason in spoons] == ["warfarin-cap"]


def test_ascii_only_refuses_every_other_character_and_says_so(rule_file: Path) -> None:
    config = Config.model_validate({"files": [str(rule_file)], "ascii_only": True})
    made = ClinicalRulesPlugin().decode_constraint(api.Context("", config, seed=0))[0]
    state = start(made, {"medications": []})
    assert state is not None
    out, reasons = generate(state, "caf\u00e9")
    assert out == "caf"
    assert [reason.rule for reason in reasons] == ["ascii-only"]
    assert made.fingerprint() != constraint(rule_file).fingerprint()


def test_a_required_phrase_holds_back_the_end_of_the_answer(rule_file: Path) -> None:
    text = rule_file.read_text(encoding="utf-8")
    required = text.replace("{forbid: {classes: [NSAID]}}", "{require_phrase: [{any: [see a doctor]}]}")
    rule_file.write_text(required, encoding="utf-8")
    ctx = api.Context("", Config(files=(rule_file,)), seed=0)
    forbid, require = ClinicalRulesPlugin().decode_constraint(ctx)
    assert (forbid.name, require.name) == ("clinical_rules/forbid", "clinical_rules/require")
    assert forbid.fingerprint() != require.fingerprint()
    assert start(require, {"medications": []}) is None
    state = start(require, {"medications": ["warfarin"]})
    assert state is not None
    (end,) = VOCABULARY.eos_ids
    assert not allowed_bool(state.mask(), VOCABULARY.size)[end]
    assert state.explain(end)[0].rule == "anticoagulant-nsaid@2"
    for byte in b"Please see a doctor":
        state = state.advance(VOCABULARY.token_bytes.index(bytes([byte])))
    assert allowed_bool(state.mask(), VOCABULARY.size)[end]


def test_at_the_start_every_ordinary_token_is_allowed(rule_file: Path) -> None:
    state = start(constraint(rule_file), None)
    assert state is not None
    banned = set(np.flatnonzero(~allowed_bool(state.mask(), VOCABULARY.size)).tolist())
    assert banned == VOCABULARY.never_ids


def test_the_fingerprint_follows_the_file_and_the_policy(rule_file: Path) -> None:
    before = constraint(rule_file).fingerprint()
    assert constraint(rule_file).fingerprint() == before
    assert constraint(rule_file, "skip").fingerprint() != before
    rule_file.write_text(rule_file.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    assert constraint(rule_file).fingerprint() != before


def test_validate_reports_and_decode_constraint_refuses(rule_file: Path) -> None:
    rule_file.write_text(rule_file.read_text(encoding="utf-8").replace("[NSAID]}}", "[NSAIDs]}}"), encoding="utf-8")
    ctx = api.Context("", Config(files=(rule_file,)), seed=0)
    (problem,) = ClinicalRulesPlugin().validate(ctx, api.Plan({}))
    assert problem.found == "the unknown class 'NSAIDs'"
    with pytest.raises(api.UserError, match="NSAIDs"):
        ClinicalRulesPlugin().decode_constraint(ctx)


def test_without_files_the_line_to_add_is_named() -> None:
    with pytest.raises(api.UserError, match="no rule files") as caught:
        ClinicalRulesPlugin().decode_constraint(api.Context("", None, seed=0))
    assert "files = " in caught.value.fix


def test_the_report_lists_rules_with_citations(rule_file: Path) -> None:
    ctx = api.Context("", Config(files=(rule_file,)), seed=0)
    (section,) = ClinicalRulesPlugin().report(ctx, api.RunView(Path(), {}, ()))
    assert not section.private
    row = section.tables[0].rows[1]
    assert row[0] == "never-isotretinoin@1"
    assert row[3] == "always"
    assert row[5] == "Handbook, p. 40: “Specialists only.” <https://example.org/40>"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(rules, [str(a) for a in arguments])


def test_rules_trace_shows_rule_and_place(rule_file: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text('{"medications": ["Coumadin"]}')
    text = "Take Advil, or Isotretinoin, or ASA"
    shown = run("trace", rule_file, text, "--facts", facts).output
    assert "at character 9 ('l'): anticoagulant-nsaid@2 (major): Advil. Handbook, p. 12" in shown
    assert "at the end: anticoagulant-nsaid@2 (major): ASA" in shown
    rows = json.loads(run("trace", rule_file, text, "--facts", facts, "--json").output)
    assert [row["at"] for row in rows["interventions"]] == [9, text.index(", or ASA") - 1, len(text)]
    facts.write_text('{"medications": []}')
    assert "no rule intervenes" in run("trace", rule_file, "Take Advil", "--facts", facts).output


def test_rules_check_exits_with_2_on_a_mistake(rule_file: Path) -> None:
    good = run("check", rule_file)
    assert (good.exit_code, good.output.strip()) == (0, "2 rules over 4 drugs, 7 names that can be forbidden")
    rule_file.write_text("version: 2\nrules: [{id: x}]\n", encoding="utf-8")
    bad = run("check", rule_file, "--json")
    assert bad.exit_code == 2
    assert {"where", "found", "expected", "fix", "severity"} == set(json.loads(bad.output)["problems"][0])


@pytest.mark.parametrize("content", ["[1]", "{"])
def test_unreadable_facts_file_is_named(rule_file: Path, tmp_path: Path, content: str) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(content)
    with pytest.raises(api.UserError, match=r"facts\.json"):
        raise run("trace", rule_file, "x", "--facts", facts).exception
