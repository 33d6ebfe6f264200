"""By what the rows of a test split are told apart, where their routing is counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from r1core.api import Example, Message
from r1core.evaluate.routing import MOST, OTHERS, domains_of


def row(number: int, task: str = "clinic", source: str = "set", answer: str = "heart") -> Example:
    return Example(f"r{number}", (Message("user", "?"), Message("assistant", answer)), task, source)


def bench(choices: tuple[str, ...] = (), *, own_files: bool = False) -> Any:
    tasks = {name: SimpleNamespace(choices=choices) for name in ("clinic", "dose")}
    return SimpleNamespace(tasks=tasks, recipe=SimpleNamespace(data=SimpleNamespace(files="x" if own_files else None)))


def test_tasks_come_before_data_sets_and_data_sets_before_labels() -> None:
    labels = ("heart", "skin")
    several = [row(0, "clinic", "a"), row(1, "dose", "b")]
    assert domains_of(bench(labels), several) == ("task", ["clinic", "dose"])
    assert domains_of(bench(labels), [row(0, source="a"), row(1, source="b")]) == ("data set", ["a", "b"])
    assert domains_of(bench(labels), [row(0, answer="skin"), row(1)]) == ("label", ["skin", "heart"])
    assert domains_of(bench(), [row(0, answer="free text"), row(1)]) == ("", ["all rows", "all rows"])


def test_a_line_of_a_users_file_is_no_domain() -> None:
    rows = [row(n, source=f"/home/me/patients.csv:{n}") for n in range(3)]
    assert domains_of(bench(own_files=True), rows) == ("", ["all rows"] * 3)


def test_the_smallest_of_many_labels_are_one() -> None:
    labels = tuple(f"l{n:02d}" for n in range(MOST + 3))
    rows = [row(n, answer=labels[n]) for n in range(MOST + 3)] + [row(99 + n, answer=labels[n]) for n in range(MOST)]
    _, found = domains_of(bench(labels), rows)
    assert found.count(OTHERS) == 3
    assert set(found) == {*labels[:MOST], OTHERS}
