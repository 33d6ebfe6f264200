"""A reward for short answers, which abstains where there is nothing to judge."""

from __future__ import annotations

from collections.abc import Sequence

from r1core import api

WORDS = 20  # an answer of this length or more scores 0


class Brevity:
    """1 for an answer of one word, 0 from `WORDS` words on, None for an empty one."""

    name = "reward/brevity"

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **fields: Sequence[api.JSON]
    ) -> Sequence[float | None]:
        """One score a completion; `fields` holds the other columns of the records."""
        return [max(0.0, 1 - (len(text.split()) - 1) / WORDS) if text.strip() else None for text in completions]

    def fingerprint(self) -> str:
        """Changes with the limit."""
        return str(WORDS)


@api.hookimpl
def reward(ctx: api.Context) -> Sequence[api.Reward]:
    """The one reward."""
    return [Brevity()]
