"""What a user asks of one answer besides the run's own constraints: from the command line, or from `[generate]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from r1core.api import DecodeConstraint, UserError
from r1core.decode.hold import Phrases
from r1core.recipe.schema import Generate


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of `r1core generate`; what is not given is as the recipe has it."""

    json_schema: Path | None = None
    regex: str | None = None
    require: Sequence[str] = ()
    stop: Sequence[str] = ()
    beams: int | None = None

    def over(self, recipe: Generate) -> Asked:
        """These options where they are given, else the recipe's.

        Raises
        ------
        UserError : for beams that would be sampled, or an empty stop string.
        """
        merged = Asked(
            self.json_schema or recipe.json_schema,
            self.regex if self.regex is not None else recipe.regex or None,
            tuple(self.require) or tuple(recipe.require),
            tuple(self.stop) or tuple(recipe.stop),
            self.beams or recipe.beams,
        )
        if merged.beams and merged.beams > 1 and recipe.temperature:
            raise UserError(
                f"{merged.beams} beams with generate.temperature = {recipe.temperature}: beams are not sampled",
                fix="--set generate.temperature=0.0, or one beam",
            )
        if "" in merged.stop:
            raise UserError("a stop string is empty: nothing could be written", fix="leave it out")
        return merged

    def constraints(self) -> list[DecodeConstraint]:
        """The constraints that these options stand for.

        Raises
        ------
        UserError : for a schema, an expression or a phrase that is none, or where `r1core[structured]` is missing.
        """
        found: list[DecodeConstraint] = []
        if self.json_schema is not None or self.regex is not None:
            from r1core.decode.structured import JsonSchema, Regex  # llguidance: only where it is asked for

            found += [JsonSchema.read(self.json_schema)] if self.json_schema is not None else []
            found += [Regex(self.regex)] if self.regex is not None else []
        return [*found, Phrases(tuple(self.require))] if self.require else found
