"""The tasks beside the main one, each with its baselines and standard errors. Research, not clinical advice.

    python benchmarks/medical_tasks.py                            every task, on the test
    python benchmarks/medical_tasks.py diagnosis --part val       one task, on what choices are made on
    python benchmarks/medical_tasks.py --no-model                 only what needs no language model

- `diagnosis`: the phenotypes of OMIM to the disease of Orphanet. The ontology retriever alone; the adapted model alone
  over the retriever's candidates; both, the retriever's score weighted as it does best on half of `val`.
- `layperson`: a layperson's words to the HPO term. Dictionary, TF-IDF of character 3-grams, the encoder of `umls`
  trained without the terms that are asked about, and that encoder with the adapted model over its candidates. What is
  asked is not in the dictionary, and the terms of `val` and `test` train nothing.
- `brand`: an unseen brand name to the generic name, as `r1core adapt` measures it; without a model, its baselines.

The model's score of a candidate is its log-probability when only candidates may be said (a trie). Runs are kept in
`--runs`, so a second call only scores. Test data is for the end, once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from r1core_medical.domain import MEDICAL
from r1core_medical.tasks import diagnosis, layperson
from r1core_medical.tasks.brand import Brand
from r1core_umls.cache import load_or_build
from r1core_umls.evidence import Witness
from r1core_umls.fitting import fit
from r1core_umls.hpo import HpoSource
from r1core_umls.normaliser import BATCH
from r1core_umls.ranking import Fitted
from r1core_umls.tables import Tables
from r1core_umls.training import Training
from record import machine, write

from r1core.api import Example, Message
from r1core.decode.session import Session
from r1core.decode.values import Decoding
from r1core.evaluate import baselines, metrics
from r1core.model.processes import how_many, spread
from r1core.pipeline import compute_of
from r1core.selection import Selection
from r1core.workbench import open_bench

BAR = {"hit@1": 0.296, "hit@10": 0.608}
"""What an ontology retriever reached across sources, as issue 4 states it."""
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
"""What the retriever's score is multiplied by before the model's log-probability is added."""
CANDIDATES = 10
DISCLAIMER = "research, not clinical advice"
Row = dict[str, object]


@dataclass(frozen=True)
class Question:
    """A prompt, what was found for it, best first, and where the right answer stands (-1: not found).

    scores : of the candidates, by what found them. cluster : by which standard errors are clustered.
    """

    example: Example
    names: tuple[str, ...]
    scores: tuple[float, ...]
    right: int
    cluster: str


@dataclass(frozen=True)
class Runs:
    """Where runs are kept, and what is set in all of them besides their recipes (`--set`)."""

    folder: Path
    sets: tuple[str, ...] = ()

    def reached(self, verb: str, task: str) -> Path:
        """Go as far as a verb by the recipe that the domain ships, or take up what is there; the run's directory."""
        recipe, place = MEDICAL.resources / "tasks" / f"{task}.toml", self.folder / task
        command = [verb, "medical", "--recipe", str(recipe), "--run", str(place)]
        sets = [word for one in self.sets for word in ("--set", one)]
        subprocess.run([sys.executable, "-m", "r1core.cli.main", *command, *sets], check=True)
        return place


def model_scores(run: Path, questions: Sequence[Question]) -> list[NDArray[np.float64]]:
    """Return the adapted model's log-probability of each candidate of each question.

    Zeros where the right answer is not among the candidates: no order of them would find it.
    """
    bench = open_bench(Selection("medical", run / "recipe.toml", run=run))
    compute = compute_of(bench)
    session = Session(bench, compute, adapted=True)

    def work(question: Question) -> NDArray[np.float64]:
        if question.right < 0:
            return np.zeros(len(question.names))
        _, scores = session.answer_and_score([question.example], Decoding(1), session.label_tree(question.names))
        return scores[0]

    def tell(done: int) -> None:
        if done % 50 < 2:
            print(f"  {done} of {len(questions)} questions", flush=True)

    tokens = 100 * len(questions)
    processes = how_many(
        compute, bench.recipe.model.processes, parameters=session.parameters, tokens=tokens, most=len(questions)
    )
    return spread(processes, work, questions, tell)


def ranks(questions: Sequence[Question], scores: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the place of the right answer among the candidates, from 0; infinite where it was not found."""
    places = [
        np.inf if q.right < 0 else float((np.argsort(-s, kind="stable") == q.right).argmax())
        for q, s in zip(questions, scores, strict=True)
    ]
    return np.array(places)


def combined(
    questions: Sequence[Question], model: Sequence[NDArray[np.float64]], weight: float
) -> list[NDArray[np.float64]]:
    """The model's log-probability and the weighted score of what found the candidate."""
    return [said + weight * np.array(q.scores) for q, said in zip(questions, model, strict=True)]


def best_weight(questions: Sequence[Question], model: Sequence[NDArray[np.float64]]) -> float:
    """The weight with the highest mean reciprocal rank; the largest of equals, which trusts the model least."""
    reciprocal = {w: float((1 / (1 + ranks(questions, combined(questions, model, w)))).mean()) for w in WEIGHTS}
    print(f"mean reciprocal rank by weight, on val: { {w: round(v, 4) for w, v in reciprocal.items()} }", flush=True)
    return max(WEIGHTS, key=lambda w: (reciprocal[w], w))


def reranked(task: str, runs: Runs | None, ask: Callable[[str], list[Question]], part: str, finder: str) -> list[Row]:
    """Rows of what found the candidates, and, where there are runs, of the model over them and of both together."""
    if runs is None:
        asked = ask(part)
        alone = ranks(asked, [np.array(q.scores) for q in asked])
        return hits(task, part, finder, alone, [q.cluster for q in asked])
    run = runs.reached("train", task)
    chosen_on = ask("val")
    said = model_scores(run, chosen_on)
    weight = best_weight(chosen_on, said)
    questions = chosen_on if part == "val" else ask(part)
    said = said if part == "val" else model_scores(run, questions)
    clusters = [q.cluster for q in questions]
    systems = {
        finder: ranks(questions, [np.array(q.scores) for q in questions]),
        "adapted model over its candidates": ranks(questions, said),
        f"both, weight {weight:g}": ranks(questions, combined(questions, said, weight)),
    }
    rows = [row for name, found in systems.items() for row in hits(task, part, name, found, clusters)]
    first, both = systems[finder], systems[f"both, weight {weight:g}"]
    for k in (1, 3):
        paired = metrics.mean((both < k).astype(float) - (first < k), clusters)
        figure = f"{task}, {part}: both minus {finder}, hit@{k} (paired; {DISCLAIMER})"
        rows.append({"figure": figure, "value": round(paired.value, 4), "unit": told(paired)})
    return rows


def on_machine(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with the machine and the GPU that models computed on, if there is one."""
    gpu = f", {torch.cuda.get_device_name()}, torch {torch.__version__}" if torch.cuda.is_available() else ""
    return [{**row, "machine": machine() + gpu} for row in rows]


def told(estimate: metrics.Estimate) -> str:
    """The unit of a share, with its standard error."""
    return f"fraction of {estimate.n} queries, standard error {estimate.se:.4f}"


def hits(task: str, part: str, name: str, found: NDArray[np.float64], clusters: Sequence[str]) -> list[Row]:
    """Rows of the share of queries whose answer is among the first 1, 3 and 10."""
    rows: list[Row] = []
    for k in (1, 3, 10):
        share = metrics.mean((found < k).astype(float), clusters)
        figure = f"{task}, {part}: {name}, hit@{k} ({DISCLAIMER})"
        rows.append({"figure": figure, "value": round(share.value, 4), "unit": told(share)})
        bar = BAR.get(f"hit@{k}") if task == "diagnosis" else None
        if bar is not None:
            rows[-1] |= {"target": f">= {bar}", "met": bool(share.value >= bar)}
    return rows


def disorders_asked(split: Literal["val", "test"], every: int = 1) -> list[Question]:
    """Every n-th linked disorder of a part, with the retriever's candidates."""
    retriever, asked = diagnosis.orphanet(), []
    for query, target in diagnosis.disorders(split)[::every]:
        found = {disease.name: score for disease, score in reversed(retriever.rank(query.phenotypes, CANDIDATES))}
        names = tuple(reversed(found))
        message = Message("user", diagnosis.prompt(retriever, query.phenotypes))
        right = names.index(target.name) if target.name in names else -1
        scores = tuple(found[name] for name in names)
        asked.append(Question(Example(query.id, (message,), "diagnosis"), names, scores, right, target.id))
    return asked


def diagnosis_rows(runs: Runs | None, part: str) -> list[Row]:
    """Phenotypes to diagnosis; half of `val` is enough for a model."""

    def ask(split: str) -> list[Question]:
        return disorders_asked(split, 2 if split == "val" and runs is not None else 1)  # type: ignore[arg-type]

    return reranked("diagnosis", runs, ask, part, "ontology retriever")


class Sayings:
    """Everything that the layperson task is asked with: an encoder that knows neither `val` nor `test`."""

    def __init__(self) -> None:
        self.base = load_or_build(HpoSource())
        self.concepts = list(self.base.concepts)
        self.place = {concept.id: number for number, concept in enumerate(self.concepts)}
        self.parents = [[self.place[up] for up in c.parents if up in self.place] for c in self.concepts]
        self.definitions = [concept.definition for concept in self.concepts]

    @cached_property
    def fitted(self) -> Fitted:
        """The encoder and its ranker, trained on the terms of `train`."""
        return self.fit_without(())

    def fit_without(self, sayings: Sequence[layperson.Saying]) -> Fitted:
        """An encoder and its ranker, trained on the terms of `train` but for these sayings."""
        names, owners = self.names(sayings)
        seen = [at for at, owner in enumerate(owners) if layperson.split_of(self.concepts[owner]) == "train"]
        return fit([names[at] for at in seen], [owners[at] for at in seen], self.definitions, self.parents, Training())

    def names(self, without: Sequence[layperson.Saying]) -> tuple[list[str], list[int]]:
        """Exact names of every concept, each normal form once, but for these sayings."""
        left_out = {(one.concept_id, layperson.normal_form(one.text)) for one in without}
        names, owners = [], []
        for number, concept in enumerate(self.concepts):
            own = (concept.name, *(s.text for s in concept.synonyms if s.scope == "EXACT" and s.kind != "abbreviation"))
            for form, name in {layperson.normal_form(name): name for name in reversed(own)}.items():
                if form and (concept.id, form) not in left_out:
                    names.append(name)
                    owners.append(number)
        return names, owners

    def ask(self, split: str) -> list[Question]:
        """The encoder's candidates for what is said in one part; a fourth of `val` is enough."""
        asked = layperson.installed()[split]  # type: ignore[index]
        tables = Tables.of(self.fitted.encoder, *self.names(asked), self.definitions, self.parents)
        witness = Witness(tables)
        asked = asked[::4] if split == "val" else asked
        questions: list[Question] = []
        for first in range(0, len(asked), BATCH):
            batch = asked[first : first + BATCH]
            evidence = witness.weigh([one.text for one in batch])
            probabilities = self.fitted.ranker.probabilities(evidence)
            for one, concepts, shares in zip(batch, evidence.concepts, probabilities, strict=True):
                best = [at for at in np.argsort(-shares, kind="stable")[:CANDIDATES] if concepts[at] >= 0]
                ids = [int(concepts[at]) for at in best]
                answer = self.place[one.concept_id]
                example = Example(one.text, (Message("user", layperson.prompt(one.text)),), "layperson")
                scores = tuple(float(np.log(max(shares[at], 1e-9))) for at in best)
                names = tuple(self.concepts[number].name for number in ids)
                right = ids.index(answer) if answer in ids else -1
                questions.append(Question(example, names, scores, right, one.concept_id))
        return questions

    def baselines(self, split: str) -> dict[str, NDArray[np.float64]]:
        """Ranks of the right concept by the dictionary and by TF-IDF of character 3-grams."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        asked = layperson.installed()[split]  # type: ignore[index]
        names, owners = self.names(asked)
        known: dict[str, list[int]] = {}
        for name, owner in zip(names, owners, strict=True):
            known.setdefault(layperson.normal_form(name), []).append(owner)
        vectoriser = TfidfVectorizer(analyzer="char", ngram_range=(3, 3), lowercase=True)
        table = vectoriser.fit_transform(names)
        dictionary, tfidf = [], []
        for one, vector in zip(asked, vectoriser.transform([one.text for one in asked]), strict=True):
            answer = self.place[one.concept_id]
            listed = known.get(layperson.normal_form(one.text), [])
            dictionary.append(listed.index(answer) if answer in listed else np.inf)
            alike = (table @ vector.T).toarray()[:, 0]
            best = np.argsort(-alike, kind="stable")[:200]
            order = list(dict.fromkeys(owners[at] for at in best if alike[at] > 0))
            tfidf.append(order.index(answer) if answer in order else np.inf)
        return {"exact dictionary": np.array(dictionary), "TF-IDF, character 3-grams": np.array(tfidf)}


def layperson_rows(runs: Runs | None, part: str) -> list[Row]:
    """A layperson's words to the HPO term."""
    sayings = Sayings()
    clusters = [one.concept_id for one in layperson.installed()[part]]  # type: ignore[index]
    rows = [
        row for name, found in sayings.baselines(part).items() for row in hits("layperson", part, name, found, clusters)
    ]
    return rows + reranked("layperson", runs, sayings.ask, part, "trained encoder")


def brand_rows(runs: Runs | None, part: str) -> list[Row]:
    """Brand to generic name: what `r1core adapt` writes. Its figures are of the test."""
    if runs is None:
        return brand_baselines(part)
    if part == "val":
        return []
    place = runs.reached("adapt", "brand")
    summary = json.loads((place / "evaluation" / "summary.json").read_text())
    compared = json.loads((place / "evaluation" / "comparisons.json").read_text())
    rows = brand_baselines(part)
    for one in summary:
        if one["metric"] in ("accuracy", "top_3") and one["system"] in ("base+constrained", "adapted+constrained"):
            unit = f"fraction of {one['n']} queries, standard error {one['se']:.4f}"
            figure = f"brand, test: {one['system']}, {one['metric']} ({DISCLAIMER})"
            rows.append({"figure": figure, "value": round(one["value"], 4), "unit": unit})
    for one in compared:
        if one["metric"] in ("accuracy", "top_3"):
            unit = f"fraction of {one['n']} queries, standard error {one['se']:.4f}"
            figure = f"brand, test: {one['system']} minus {one['against']}, {one['metric']} (paired; {DISCLAIMER})"
            rows.append({"figure": figure, "value": round(one["value"], 4), "unit": unit})
    return rows


def brand_baselines(part: str) -> list[Row]:
    """The majority and TF-IDF with a linear model, tuned on `val`, as `r1core evaluate` fits them."""
    source = Brand()
    task = source.tasks["brand"]
    rows = {split: list(source.read(split)) for split in ("train", "val", part)}  # type: ignore[arg-type]
    texts = {split: [baselines.user_text(e) for e in found] for split, found in rows.items()}
    gold = {split: [e.messages[-1].content for e in found] for split, found in rows.items()}
    fitted = baselines.tfidf(texts["train"], gold["train"], texts["val"], gold["val"], texts[part], labels=task.choices)
    constant = baselines.majority(gold["train"], len(rows[part]), labels=task.choices)
    clusters = [str(example.fields["family"]) for example in rows[part]]
    place = {label: at for at, label in enumerate(task.choices)}
    found: list[Row] = []
    for name, scores in (("majority", constant), ("TF-IDF, tuned on val", fitted.scores)):
        order = np.argsort(-np.asarray(scores), axis=1, kind="stable")
        right = np.array([place[answer] for answer in gold[part]])
        found += hits("brand", part, name, (order == right[:, None]).argmax(1).astype(float), clusters)
    return found


TASKS = {"diagnosis": diagnosis_rows, "layperson": layperson_rows, "brand": brand_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=tuple(TASKS), help="one of them; all without it")
    parser.add_argument("--part", choices=("val", "test"), default="test")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help="in every run")
    parser.add_argument("--no-model", action="store_true", help="only what needs no language model")
    chosen = parser.parse_args()
    runs = None if chosen.no_model else Runs(chosen.runs, tuple(chosen.sets))
    for task in [chosen.task] if chosen.task else TASKS:
        rows = TASKS[task](runs, chosen.part)
        if chosen.part == "test" and rows:
            write(f"medical_{task}", on_machine(rows))
        else:
            print(*(f"{row['figure']}: {row['value']} {row['unit']}" for row in rows), sep="\n")


if __name__ == "__main__":
    main()
