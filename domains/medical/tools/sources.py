"""What `build_rules.py` reads: the installed wheels, and the names of drugs in them. Their Python code is not run."""

from __future__ import annotations

import bz2
import json
import pickle
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

DRUGS = "drugdose/data/drugs.json"
DICTIONARY = "drug_named_entity_recognition/drug_ner_dictionary.pkl.bz2"


class Inline(list[str]):
    """A list that the YAML file holds on one line."""


class Dumper(yaml.SafeDumper):
    """A dumper of its own, so that the representer below stays here."""


class Flow(dict[str, Any]):
    """A mapping that the YAML file holds on one line."""


Dumper.add_representer(Inline, lambda d, v: d.represent_sequence("tag:yaml.org,2002:seq", v, flow_style=True))
Dumper.add_representer(Flow, lambda d, v: d.represent_mapping("tag:yaml.org,2002:map", v.items(), flow_style=True))


def installed(path: str) -> Path:
    """Where a file of an installed wheel lies, given its path inside the wheel."""
    package, _, inner = path.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"package {package!r} is not installed; see the top of build_rules.py")
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


def spaced(name: str) -> str:
    """A name of drugdose as it is written: `magnesium_sulfate` is "magnesium sulfate"."""
    return name.replace("_", " ")


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
        self.drugdose = {spaced(drug["name"]): list(drug["brand_names"]) for drug in drugs}

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
