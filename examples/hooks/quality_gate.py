"""A gate that sets records aside whose prompt has no letter in it."""

from __future__ import annotations

from collections.abc import Sequence

from r1core import api


class HasLetters:
    """Says why a record must not be used, or None."""

    name = "quality_gate/has-letters"

    def __call__(self, example: api.Example) -> str | None:
        """A short reason, without text of the record: it is written to the quarantine file."""
        prompt = [m.content for m in example.messages if m.role == "user"]
        return None if any(c.isalpha() for text in prompt for c in text) else "no letter in the prompt"

    def fingerprint(self) -> str:
        """Raise the number when the rule changes."""
        return "1"


@api.hookimpl
def quality_gate(ctx: api.Context) -> Sequence[api.QualityGate]:
    """The one gate."""
    return [HasLetters()]
