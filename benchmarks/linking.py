"""Spans and concepts end to end, on public corpora of clinical text annotated with HPO, beside dictionary baselines.

Run: python benchmarks/linking.py --corpora DIR [--part development]. DIR is `phenobert/data` of the public repository
EclipseCN/PhenoBERT; it is read where it lies. `test` is GSC+ (228 abstracts: Lobo et al. 2017, "Identifying human
phenotype terms by combining machine learning and validation rules") and ID-68 (68 case descriptions of Anazi et al.
2017); `development`, on which the thresholds were chosen, is its 30 articles of OMIM and 10 of GeneReviews.

All systems may answer with phenotypic abnormalities (HP:0000118) only; retired gold ids count as what took their place.
The encoder is that of `r1core umls train`, trained on the names of the installed HPO; no corpus trains anything. Flags:
`negated` against the annotators' own on ID-68, for gold mentions.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import spacy
from r1core_umls.assembly import linker_of
from r1core_umls.config import UmlsConfig
from r1core_umls.context import contexts
from r1core_umls.gold import GoldDocument, GoldSpan
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.linker import Linker
from r1core_umls.measure import current, measure
from r1core_umls.mentions import light_chunks
from r1core_umls.scoring import Answer, Evaluation, evaluate
from record import write
from sklearn.feature_extraction.text import TfidfVectorizer
from spacy.matcher import PhraseMatcher

ROOT = "HP:0000118"
PARTS = {
    "development": {"OMIM and GeneReviews": ("val", "GeneReviews")},
    "test": {"GSC+": ("GSC+",), "ID-68": ("ID-68",)},
}
TIMED = 40  # documents that linking is timed on
THRESHOLD = 0.7  # of scispaCy's linker, its default
_BRACKETED = re.compile(r"\[(\d+)::(\d+)\]\t(HP_\d+) \| .*")
System = Callable[[str], list[Answer]]


def read(folder: Path) -> tuple[list[GoldDocument], list[list[bool]]]:
    """Documents, and of each gold span whether the annotators call it negated."""
    documents, negated = [], []
    for file in sorted((folder / "ann").iterdir()):
        spans, denied = [], []
        for line in file.read_text(encoding="utf-8").splitlines():
            cells = line.split("\t")
            if found := _BRACKETED.fullmatch(line):
                spans.append(GoldSpan(int(found[1]), int(found[2]), (found[3].replace("_", ":"),)))
                denied.append(False)
            elif len(cells) >= 4:
                spans.append(GoldSpan(int(cells[0]), int(cells[1]), (cells[3],)))
                denied.append("Neg" in cells[4:])
        documents.append(GoldDocument(file.name, (folder / "corpus" / file.name).read_text("utf-8"), tuple(spans)))
        negated.append(denied)
    return documents, negated


def names_of(base: KnowledgeBase) -> tuple[list[str], list[str]]:
    """Names of phenotypic abnormalities and the concept of each, preferred names first."""
    kept = [base.concepts[base.position(one)] for one in (ROOT, *base.descendants(ROOT))]
    pairs = [(concept.name, concept.id) for concept in kept]
    pairs += [(s.text, concept.id) for concept in kept for s in concept.synonyms if s.scope == "EXACT"]
    return [name for name, _ in pairs], [concept_id for _, concept_id in pairs]


def phrase_matcher(base: KnowledgeBase) -> System:
    """spaCy's PhraseMatcher on lower-case tokens, longest match."""
    nlp = spacy.blank("en")
    matcher, meaning = PhraseMatcher(nlp.vocab, attr="LOWER"), {}
    for name, concept_id in zip(*names_of(base), strict=True):
        meaning.setdefault(name.lower(), concept_id)
    matcher.add("hpo", list(nlp.pipe(meaning)))

    def answer(text: str) -> list[Answer]:
        doc = nlp(text)
        spans = spacy.util.filter_spans([doc[start:end] for _, start, end in matcher(doc)])
        return [(s.start_char, s.end_char, meaning[s.text.lower()]) for s in spans if s.text.lower() in meaning]

    return answer


def tfidf(base: KnowledgeBase) -> System:
    """scispaCy's way on our chunks: nearest name by tf-idf of character 3-grams, exactly, at its default threshold."""
    names, concepts = names_of(base)
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype="float32")
    table = vectors.fit_transform(names).T.tocsr()

    def answer(text: str) -> list[Answer]:
        chunks = light_chunks(text)
        if not chunks:
            return []
        scores = vectors.transform([text[start:end] for start, end in chunks]) @ table
        best = np.asarray(scores.argmax(axis=1)).ravel()
        sure = [
            (float(scores[row, at]), *chunk, concepts[at])
            for row, (chunk, at) in enumerate(zip(chunks, best, strict=True))
        ]
        kept: list[Answer] = []
        for score, start, end, concept_id in sorted(sure, reverse=True):
            if score > THRESHOLD and all(end <= other[0] or start >= other[1] for other in kept):
                kept.append((start, end, concept_id))
        return kept

    return answer


def scored(base: KnowledgeBase, system: System, documents: Sequence[GoldDocument]) -> Evaluation:
    answers = [system(document.text) for document in documents]
    return evaluate(documents, answers, lambda one: current(base, one), known=base.__contains__)


def flags(documents: Sequence[GoldDocument], negated: Sequence[Sequence[bool]]) -> dict[str, float]:
    """Precision and recall of `negated` on gold mentions."""
    pairs = [
        (said.negated, is_so)
        for document, denied in zip(documents, negated, strict=True)
        for said, is_so in zip(contexts(document.text, [(s.start, s.end) for s in document.spans]), denied, strict=True)
    ]
    both, told, there = (sum(one) for one in zip(*((a and b, a, b) for a, b in pairs), strict=True))
    return {"precision": both / max(told, 1), "recall": both / max(there, 1), "negated mentions": there}


def rows_of(corpus: str, system: str, found: Evaluation, seconds: float, peer: str | None) -> list[dict[str, object]]:
    told = f"{corpus} ({found.documents} documents, {found.gold_mentions} mentions), {system}"
    rows: list[dict[str, object]] = []
    for counted, scores in found.scores.items():
        for name, figure in (("precision", scores.precision), ("recall", scores.recall), ("F1", scores.f1)):
            unit = f"fraction, 95 % [{figure.low:.3f}, {figure.high:.3f}]"
            rows.append(
                {"figure": f"{name}, {counted}: {told}", "value": round(figure.value, 4), "unit": unit, "peer": peer}
            )
    for k, figure in found.recall_at.items():
        unit = f"fraction, 95 % [{figure.low:.3f}, {figure.high:.3f}]"
        rows.append({"figure": f"recall@{k} of gold mentions: {told}", "value": round(figure.value, 4), "unit": unit})
    speed = round(found.documents / seconds, 1)
    rows.append({"figure": f"documents per CPU-second: {told}", "value": speed, "unit": "1/s", "peer": peer})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--part", choices=tuple(PARTS), default="development")
    chosen = parser.parse_args()
    plain = linker_of(UmlsConfig(under=(ROOT,)))
    ours: dict[str, Linker] = {
        "umls, dictionary": plain,
        "umls, dictionary and encoder": linker_of(UmlsConfig(under=(ROOT,), encoder=True)),
    }
    peers = {
        "spaCy PhraseMatcher": phrase_matcher(plain.base),
        "tf-idf of chunks, as scispaCy's linker": tfidf(plain.base),
    }
    rows: list[dict[str, object]] = []
    for corpus, folders in PARTS[chosen.part].items():
        read_ = [read(chosen.corpora / folder) for folder in folders]
        documents, negated = [d for one, _ in read_ for d in one], [n for _, one in read_ for n in one]
        for name, linker in ours.items():
            linker.link(documents[0].text)
            began = time.process_time()
            for document in documents[:TIMED]:
                linker.link(document.text)
            seconds = (time.process_time() - began) * len(documents) / len(documents[:TIMED])
            rows += rows_of(corpus, name, measure(linker, documents), seconds, None)
        for name, system in peers.items():
            began = time.process_time()
            found = scored(plain.base, system, documents)
            rows += rows_of(corpus, name, found, time.process_time() - began, name)
        if corpus == "ID-68":  # the only one whose annotators mark negation throughout
            rows += [
                {"figure": f"negated, {name}: {corpus}, gold mentions", "value": round(value, 4), "unit": "fraction"
                 if name != "negated mentions" else "mentions"}
                for name, value in flags(documents, negated).items()
            ]  # fmt: skip
    write("linking", rows)


if __name__ == "__main__":
    main()
