"""Problems of the user's input, collected rather than raised one by one, and printed one line each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from r1core.api import Problem, UserError


class InvalidInput(UserError):
    """Several problems found at once: exit code 2. `problems` holds them; the message is one line each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        single = problems[0] if len(problems) == 1 else None
        super().__init__(_body(single) if single else "\n".join(render(problems)), single.fix if single else "")
        self.problems = tuple(problems)


def render(problems: Iterable[Problem]) -> list[str]:
    """One plain line for each problem: where, found, expected, fix."""
    return [_body(problem) + (f" (fix: {problem.fix})" if problem.fix else "") for problem in problems]


def refuse(problems: Sequence[Problem]) -> None:
    """Raise `InvalidInput` if there is any error among the problems."""
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise InvalidInput(errors)


@contextmanager
def collecting(problems: list[Problem]) -> Iterator[None]:
    """Add what is refused inside to the problems, and go on."""
    try:
        yield
    except InvalidInput as refused:
        problems += refused.problems


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Problems by file and line; what has no line keeps its place at the end."""

    def place(problem: Problem) -> tuple[bool, str, int]:
        file, _, line = problem.where.rpartition(":")
        return (False, file, int(line)) if line.isdigit() else (True, "", 0)

    return sorted(problems, key=place)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The known word nearest to this one, or "" where none is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return close[0] if close else ""


def _body(problem: Problem) -> str:
    mark = "" if problem.severity == "error" else "warning: "
    expected = f"; expected {problem.expected}" if problem.expected else ""
    return f"{problem.where}: {mark}{problem.found}{expected}"
