"""Which tasks are held to the limit, and which names in `[plugins.var.advice]` hold none, as `r1core check` tells."""

from __future__ import annotations

from typing import Any

import pytest
from r1core_var import advice
from r1core_var.advice_config import AdviceConfig
from r1core_var.config import VarConfig
from r1core_var.plugin import VarPlugin

from r1core import api
from r1core.decode.constraints import Request
from r1core.decode.vocabulary import Vocabulary
from r1core.testing.tiny import tiny_tokenizer

KEY = "plugins.var.advice.tasks"


def told(names: tuple[str, ...], **data: Any) -> list[api.Problem]:
    plan = api.Plan({"data": data}, {KEY: "my.toml:9"})
    ctx = api.Context("", VarConfig(advice=AdviceConfig(tasks=names)), 0)
    return list(VarPlugin().validate(ctx, plan))


@pytest.mark.parametrize(
    ("task", "held"),
    [
        ("advice", True),
        ("prompt", True),  # `r1core generate` without --task
        ("demonstration", True),  # the report's prompt, in a run of several tasks
        ("sentiment", False),
    ],
)
def test_only_requests_of_another_task_are_free(task: str, held: bool) -> None:
    section = VarConfig(advice=AdviceConfig(tasks=("advice",)))
    (made,) = advice.constraints(api.Context("", section, 0))
    risk = {"limit": 9, "currency": "EUR", "instruments": [{"id": "ACME"}], "scenarios": [[-1.0], [0.5]]}
    example = api.Example("x", (api.Message("user", "ACME?"),), task, facts={"risk": risk})
    state = made.start(Request(example, Vocabulary.from_tokenizer(tiny_tokenizer())))
    assert (state is not None) == held
    assert bool(made.recheck(example, "BUY 900 ACME")) == held  # type: ignore[attr-defined]
    assert bool(made.rules(example)) == held  # type: ignore[attr-defined]


def test_a_name_beside_files_without_a_column_of_tasks() -> None:
    (problem,) = told(("advice",), files={"train": "a.csv"}, columns={"task": None}, tasks=[])
    assert (problem.where, problem.severity) == ("my.toml:9", "error")
    assert "['advice']" in problem.found
    assert "data.columns.task" in problem.fix


def test_a_misspelt_name_of_a_described_task() -> None:
    tasks = [{"name": "advice"}, {"name": "chat"}]
    (problem,) = told(("advise", "chat"), files={"train": "a.csv"}, columns={"task": "t"}, tasks=tasks)
    assert (problem.where, problem.severity) == ("my.toml:9", "warning")
    assert "'advise'" in problem.found
    assert problem.fix == "did you mean 'advice'?"


@pytest.mark.parametrize(
    ("names", "data"),
    [
        ((), {"files": {"train": "a.csv"}, "columns": {"task": None}}),
        (("own",), {"files": {"train": "a.csv"}, "columns": {"task": None}}),
        (("advice",), {"files": {"train": "a.csv"}, "columns": {"task": "t"}, "tasks": [{"name": "advice"}]}),
        (("letters",), {"files": {"train": "a.csv"}, "columns": {"task": "t"}, "tasks": [{"name": "advice"}]}),
        (("advice",), {"source": "finance/direction", "files": None}),
    ],
)
def test_what_a_recipe_cannot_tell_is_no_problem(names: tuple[str, ...], data: dict[str, Any]) -> None:
    assert told(names, **data) == []


def test_without_the_section_there_is_nothing_to_say() -> None:
    plan = api.Plan({"data": {"files": {"train": "a.csv"}, "columns": {"task": None}}})
    assert list(VarPlugin().validate(api.Context("", VarConfig(), 0), plan)) == []
