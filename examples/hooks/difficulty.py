"""A difficulty for a curriculum: the length of the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from r1core import api


class PromptLength:
    """Characters of everything but the answer; a long note is harder than a short one."""

    name = "difficulty/prompt-length"

    def __call__(self, example: api.Example) -> float:
        """A finite number, larger being harder; only the order of the numbers counts."""
        return float(sum(len(message.content) for message in example.without_answer().messages))

    def fingerprint(self) -> str:
        """Raise the number when the measure changes."""
        return "1"


@api.hookimpl
def difficulty(ctx: api.Context) -> Sequence[api.Difficulty]:
    """The one measure; a recipe asks for it by `curriculum.difficulty = "difficulty/prompt-length"`."""
    return [PromptLength()]
