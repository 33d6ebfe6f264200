"""The tasks of `term_layer.py`: what each run is told, what is linked in its questions, and what is asked of it.

What an arm may see of a held-out row was decided so:

- `icd10` and `diagnosis`: names, vectors and encoder of the whole ontology. It holds no chapter of ICD-10-CM and no
  disease, which are what is asked for, so a concept tells what a question says and never what answers it.
- `layperson`: the saying that is asked about is itself a name of its answer. No saying of any part is in the
  dictionary, in the mean of a concept's names or in the encoder's training, and no term of `val` or `test` trains the
  encoder. So the row of a training term is linked as well, or as badly, as one of a test term. A saying is a mention as
  it stands: the concept is the encoder's answer to the whole of it, none below a probability of 0.5.
- `brand`: HPO holds no drug, so nothing is linked and there is nothing to compare.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from medical_tasks import Question, Sayings, disorders_asked
from r1core_medical.domain import MEDICAL
from r1core_medical.tasks import layperson
from r1core_umls.assembly import linker_of, train_command
from r1core_umls.cache import load_or_build
from r1core_umls.concept_vectors import ConceptVectors
from r1core_umls.config import UmlsConfig
from r1core_umls.encoder import Encoder
from r1core_umls.hpo import HpoSource
from r1core_umls.knowledge import KnowledgeBase
from r1core_umls.normaliser import Normaliser
from r1core_umls.ranking import Fitted
from r1core_umls.tables import Tables
from r1core_umls.trained import load_known
from r1core_umls.values import LinkedConcept, encode
from term_layer_arm import LINKS, VECTORS

SHARES = "shares.json"
"""Of each split, the share of rows in whose question a concept is linked."""
Part = Literal["val", "test"]
Span = tuple[int, int, LinkedConcept]
WHOLE = UmlsConfig(encoder=True, abbreviations=False)  # one row of all defines an abbreviation


@dataclass(frozen=True)
class Ablated:
    """A task.

    Parameters
    ----------
    source : its data set. recipe : beside the domain's, if it has one. sets : what is set besides.
    in_front : site in front of the first trained block.
    """

    source: str
    recipe: str | None
    sets: tuple[str, ...]
    in_front: str


@dataclass(frozen=True)
class Layer:
    """Where the layer sits, and its learning rate."""

    site: str
    rate: float

    def __str__(self) -> str:
        return f"{self.site}, rate {self.rate:g}"


def layers_of(task: str) -> list[Layer]:
    """The layers between which `val` chooses."""
    return [Layer(site, rate) for site in ("embedding", TASKS[task].in_front) for rate in (1e-3, 1e-2)]


ALL_ROWS = ("data.max_rows=0", 'run.plugins=["smollm2"]')
TASKS = {
    "icd10": Ablated("medical/icd10_specialty", None, ALL_ROWS, "block:3"),
    "diagnosis": Ablated("medical/diagnosis", "diagnosis", ALL_ROWS, "block:19"),
    "layperson": Ablated("medical/layperson", "layperson", ALL_ROWS, "block:19"),
}


def texts_of(source: str, split: str) -> list[str]:
    """The questions of one split of a data set of the domain."""
    (found,) = (one for one in MEDICAL.sources if one.name == source)
    return [example.messages[0].content for example in found.read(split)]  # type: ignore[arg-type]


def prepare(task: str, folder: Path) -> None:
    """Link a task's questions and write what its arms read, unless it is there.

    Raises
    ------
    UserError : the encoder of the whole ontology is asked for and not trained.
    """
    if (folder / VECTORS).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    texts = {split: texts_of(TASKS[task].source, split) for split in ("train", "val", "test")}
    find, vectors = _layperson() if task == "layperson" else _whole()
    links = {text: list(find(text)) for each in texts.values() for text in dict.fromkeys(each)}
    if task != "icd10":
        for part in ("val", "test"):
            write_questions(folder / f"asked_{part}.json", asked(task, part))  # type: ignore[arg-type]
    ids = sorted({value.concept_id for spans in links.values() for _, _, value in spans})
    told = {text: [(start, end, encode(value)) for start, end, value in spans] for text, spans in links.items()}
    (folder / LINKS).write_text(json.dumps(told), "utf-8")
    shares = {split: sum(bool(links[text]) for text in each) / len(each) for split, each in texts.items()}
    (folder / SHARES).write_text(json.dumps(shares), "utf-8")
    np.savez(folder / VECTORS, ids=np.array(ids), vectors=np.stack([vectors.vector(one) for one in ids]))


def _whole() -> tuple[Callable[[str], Iterable[Span]], ConceptVectors]:
    linker, base = linker_of(WHOLE), load_or_build(HpoSource())
    encoder = load_known(base, train_command(WHOLE)).encoder
    return lambda text: [(one.start, one.end, one.value) for one in linker.link(text)], vectors_of(base, encoder)


def _layperson() -> tuple[Callable[[str], Iterable[Span]], ConceptVectors]:
    everything = [one for part in ("train", "val", "test") for one in layperson.installed()[part]]  # type: ignore[index]
    known = sayings().fit_without(everything)
    base = without(load_or_build(HpoSource()), everything)
    named = sayings().names(everything)
    tables = Tables.of(known.encoder, *named, sayings().definitions, sayings().parents)
    normaliser = Normaliser(base, Fitted(known.encoder, known.ranker, tables))
    start = len(layperson.prompt(""))

    def find(text: str) -> Iterable[Span]:
        for one in normaliser.candidates([text[start:]], 1)[0]:
            if one.probability >= WHOLE.min_probability:
                best = base.concepts[one.position]
                said = text[start:]
                value = LinkedConcept(best.id, best.name, best.cuis, said, "encoder", probability=one.probability)
                yield start, len(text), value

    return find, vectors_of(base, known.encoder)


@cache
def sayings() -> Sayings:
    """What the layperson task is asked with."""
    return Sayings()


def without(base: KnowledgeBase, left_out: Sequence[layperson.Saying]) -> KnowledgeBase:
    """The base, each concept in its place, without these sayings among the names."""
    gone = {(one.concept_id, layperson.normal_form(one.text)) for one in left_out}
    return KnowledgeBase.of(
        replace(c, synonyms=tuple(s for s in c.synonyms if (c.id, layperson.normal_form(s.text)) not in gone))
        for c in base.concepts
    )


def vectors_of(base: KnowledgeBase, encoder: Encoder) -> ConceptVectors:
    """The encoder's vectors of a base's concepts."""
    return ConceptVectors(lambda: (base, encoder))


def asked(task: str, part: Part) -> list[Question]:
    """The questions of a task whose answers are among candidates, as `medical_tasks.py` asks them."""
    return disorders_asked(part) if task == "diagnosis" else sayings().ask(part)


def write_questions(path: Path, questions: Sequence[Question]) -> None:
    """Write questions as JSON."""
    rows = [(q.example.id, q.example.messages[0].content, q.names, q.right, q.cluster) for q in questions]
    path.write_text(json.dumps(rows), "utf-8")
