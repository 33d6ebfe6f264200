"""The evaluate stage: every system on the whole test split, written as predictions, summary and comparisons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from r1core.api import JSON, Example, Task, UserError
from r1core.data.tokens import prompt_of
from r1core.decode.demo import rule_demonstration
from r1core.decode.generate import Decoding
from r1core.decode.session import Session
from r1core.evaluate import baselines, over_time, suite, summary
from r1core.evaluate.predictions import Prediction, from_scores, from_texts, gold_of, write_predictions
from r1core.evaluate.routing import write_routing
from r1core.model.load import check_packing
from r1core.model.probe import Compute
from r1core.model.processes import how_many, spread
from r1core.runs.files import write_json
from r1core.workbench import Workbench

Progress = Callable[[str, int, int], None]

CHARACTERS_A_TOKEN = 4
"""Of English text, roughly; only used to guess whether sharing the work pays."""


def evaluate(bench: Workbench, compute: Compute, progress: Progress, tell: Callable[[str], None]) -> dict[str, JSON]:
    """Answer the test split with every system; return the figures for the manifest.

    Raises
    ------
    UserError : when the run is not trained, or its test split is empty.
    """
    run, recipe = bench.run, bench.recipe
    run.evaluation.mkdir(mode=0o700, exist_ok=True)
    for system in summary.SYSTEMS:  # of an earlier recipe, which may have asked others
        (run.evaluation / f"{system}.jsonl").unlink(missing_ok=True)
    splits = {s: bench.measured(run.split(s)) for s in ("train", "val", "test")}
    fitted = {name: _baselines(bench, task, splits, tell) for name, task in bench.tasks.items()}
    session = Session(bench, compute, adapted=True)
    metrics = {metric.name: metric for metric in bench.metrics}
    rows: list[summary.Row] = []
    compared: list[summary.Comparison] = []
    answered: dict[str, list[Prediction]] = {}
    for name, task in bench.tasks.items():
        test = of_task(splits["test"], name)
        systems = fitted[name] | _models(session, task, test, progress)
        rows += suite.evaluate(task, systems, examples=test, plugin_metrics=metrics, seed=recipe.run.seed)
        against, best = [s for s in ("tfidf", "base") if s in systems], _best(task.choices)
        compared += [c for other in against for c in suite.compare(task, systems, best, other, seed=recipe.run.seed)]
        for system, predictions in systems.items():
            answered.setdefault(system, []).extend(predictions)
    summary.write_summary(run.summary, rows)
    summary.write_comparisons(run.evaluation / "comparisons.json", compared)
    for system, predictions in answered.items():
        write_predictions(run.evaluation / f"{system}.jsonl", predictions)
    write_json(run.evaluation / "rule_demo.json", rule_demonstration(session))
    write_routing(session, splits["test"])
    wanted = ("accuracy", "exact_match")
    reached = over_time.measure(bench, session, answered, splits["test"], partial(answers, progress=progress), tell)
    several = len(bench.tasks) > 1
    named = {f"{r.task}: " * several + f"{r.system} {r.metric}": r.value for r in rows if r.metric in wanted}
    return reached | named


def of_task(examples: Sequence[Example], task: str) -> list[Example]:
    """The examples of one task, in their order."""
    return [example for example in examples if example.task == task]


def _best(choices: Sequence[str]) -> str:
    return "adapted" + summary.CONSTRAINED if choices else "adapted"


def _models(session: Session, task: Task, test: list[Example], progress: Progress) -> dict[str, list[Prediction]]:
    """What the base model and the adapted one answer on a task."""
    of = f" {task.name}" if len(session.bench.tasks) > 1 else ""
    systems: dict[str, list[Prediction]] = {}
    if session.bench.recipe.evaluate.base_model:
        with session.as_base():
            systems["base"] = answers(session, task, test, f"base{of}", progress)
    systems["adapted"] = answers(session, task, test, f"adapted{of}", progress)
    return systems


def _baselines(
    bench: Workbench, task: Task, splits: Mapping[str, Sequence[Example]], tell: Callable[[str], None]
) -> dict[str, list[Prediction]]:
    """The majority's and the linear model's answers; none for free text, or where the recipe wants none."""
    if not (task.choices and bench.recipe.evaluate.baselines):
        return {}
    train, val, test = (of_task(splits[s], task.name) for s in ("train", "val", "test"))

    def gold(examples: Sequence[Example]) -> list[str]:
        return [gold_of(e, task.choices) for e in examples]

    def texts(examples: Sequence[Example]) -> list[str]:
        return [baselines.user_text(e) for e in examples]

    majority = baselines.majority(gold(train), len(test), labels=task.choices)
    fitted = baselines.tfidf(
        texts(train), gold(train), texts(val), gold(val), texts(test), labels=task.choices, seed=bench.recipe.run.seed
    )
    tell(
        f"  tfidf{f' {task.name}' if len(bench.tasks) > 1 else ''}: "
        f"{fitted.features}, {fitted.classifier}, C = {fitted.c} "
        f"(validation accuracy {fitted.validation_accuracy:.3f})"
    )
    return {
        "majority": from_scores(task, test, majority),
        "tfidf": from_scores(task, test, fitted.scores),
    }


def _together(session: Session, shortest: Example, longest: Example) -> int:
    """Rows of a pass: as the recipe says where packing keeps them apart, as training found or is found here."""
    recipe, kinds = session.bench.recipe, session.bench.chain.kinds
    if recipe.train.packing == "none":
        return 1
    if recipe.train.packing != "shared_prefix":
        try:
            rows = [session.renderer.encode(example) for example in (shortest, longest)]
            check_packing(session.model, rows, kinds, session.compute.precision)
        except UserError:
            return 1
    return recipe.evaluate.batch_size


def answers(session: Session, task: Task, test: Sequence[Example], system: str, progress: Progress) -> list[Prediction]:
    """One model's predictions, in batches of similar length, returned in the split's order."""
    bench = session.bench
    characters = [sum(len(m.content) for m in example.messages) for example in test]
    order = sorted(range(len(test)), key=characters.__getitem__)
    size = _together(session, test[order[0]], test[order[-1]]) if test else 1
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    asked = bench.recipe.evaluate
    decoding = Decoding(asked.max_new_tokens, seed=bench.recipe.run.seed, reasoning=asked.reasoning_tokens)
    tree = session.label_tree(task.choices) if task.choices else None
    processes = how_many(
        session.compute,
        bench.recipe.model.processes,
        parameters=session.parameters,
        tokens=sum(characters) // CHARACTERS_A_TOKEN,
        most=len(batches),
    )

    def work(chosen: Sequence[int]) -> tuple[list[str], np.ndarray]:
        examples = [test[i] for i in chosen]
        if tree is not None:
            given, scores = session.answer_and_score(examples, decoding, tree)
        else:
            states = [session.constraint(prompt_of(e)) for e in examples]
            given, scores = session.answer(examples, decoding, states), np.zeros((len(examples), 0))
        return [answer.text.strip() for answer in given], scores

    texts, scored = [""] * len(test), np.zeros((len(test), len(task.choices)))
    done = spread(processes, work, batches, lambda number: progress(system, number, len(batches)))
    for chosen, (answered, scores) in zip(batches, done, strict=True):
        scored[chosen] = scores
        for index, text in zip(chosen, answered, strict=True):
            texts[index] = text
    if tree is not None:
        return from_scores(task, test, scored, texts=texts)
    return from_texts(task, test, texts)
