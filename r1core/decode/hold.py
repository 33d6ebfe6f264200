"""What one answer is held to, from the first token to the recheck of its text and the audit record.

The core's own constraints (label set, required phrases, JSON Schema, regular expression) are `DecodeConstraint`s like
those of plugins, and are intersected with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r1core.api import ConstraintState, DecodeConstraint, DecodeRequest, Example, Reason
from r1core.compose import ConstraintSet
from r1core.decode.characters import WHOLE_CHARACTERS
from r1core.decode.choices import ChoiceAutomaton
from r1core.decode.constraints import Composite, Request, intersect
from r1core.decode.lift import lift
from r1core.decode.vocabulary import Vocabulary


@dataclass(slots=True)
class LabelSet:
    """The answer is exactly one of these labels."""

    labels: tuple[str, ...]
    name: str = "choices"
    requires = True

    def start(self, request: DecodeRequest) -> ConstraintState:
        """The labels as an automaton."""
        return request.lift(ChoiceAutomaton(self.labels))

    def recheck(self, example: Example, text: str) -> Sequence[Reason]:
        """Whether the text is one of the labels."""
        known = text in self.labels
        return () if known else (Reason("choices", "the task's label set", "the answer is none of the labels"),)

    def fingerprint(self) -> str:
        """Hash of the labels."""
        return hashlib.sha256("\0".join(self.labels).encode()).hexdigest()


@dataclass(slots=True)
class Phrases:
    """The answer holds each of these phrases before it ends."""

    phrases: tuple[str, ...]
    name: str = "required"
    requires = True

    def start(self, request: DecodeRequest) -> ConstraintState:
        """The phrases as a state that refuses the end."""
        return request.require({phrase: (self._reason(phrase),) for phrase in self.phrases})

    def recheck(self, example: Example, text: str) -> Sequence[Reason]:
        """The phrases that are not there."""
        plain = text.encode().lower()
        return [self._reason(phrase) for phrase in self.phrases if phrase.encode().lower() not in plain]

    def fingerprint(self) -> str:
        """Hash of the phrases."""
        return hashlib.sha256("\0".join(self.phrases).encode()).hexdigest()

    @staticmethod
    def _reason(phrase: str) -> Reason:
        return Reason("required-phrase", "asked for with the prompt", phrase)


@dataclass(frozen=True, slots=True)
class Hold:
    """The constraints on one answer."""

    example: Example
    constraints: ConstraintSet
    vocabulary: Vocabulary

    def start(self, outputs: Mapping[str, object], *, inside: bool = False) -> Composite | None:
        """The first state, told what layers made of the prompt; None where no constraint applies.

        `inside` : the answer stands behind other text that is generated.
        """
        vocabulary = self.vocabulary.inside if inside else self.vocabulary
        request = Request(self.example, vocabulary, outputs)
        states = self.constraints.states(request)
        if not states:
            return None
        if vocabulary.whole_characters:
            states.append(("r1core/utf-8", lift(WHOLE_CHARACTERS, vocabulary)))
        return intersect(states, vocabulary.size, vocabulary.never_ids)

    def recheck(self, text: str, *, finished: bool = True) -> list[tuple[str, Reason]]:
        """`(constraint, finding)`: what is wrong with an answer, found without the automata that made it."""
        return self.constraints.recheck(self.example, text, finished=finished)

    def against(self, text: str) -> list[str]:
        """What speaks against showing a text that was not held to the constraints.

        The rules that a recheck finds something against, and the constraints that have none to ask. What asks for a
        form of the answer (`requires`) says nothing of other text.
        """
        loose = [c.name for c in self.constraints.constraints if not getattr(c, "requires", False) and not rechecks(c)]
        found = [reason.rule for _, reason in self.recheck(text, finished=False)]
        return list(dict.fromkeys([*loose, *found]))


def rechecks(constraint: object) -> bool:
    """Whether it has a recheck of its own: a plugin's component stands in a guard that always has one."""
    return hasattr(getattr(constraint, "inner", constraint), "recheck")


def hold(example: Example, constraints: Sequence[DecodeConstraint], vocabulary: Vocabulary) -> Hold:
    """Hold one answer to these constraints.

    Raises
    ------
    UserError : when two carry one name.
    """
    return Hold(example, ConstraintSet(constraints), vocabulary)
