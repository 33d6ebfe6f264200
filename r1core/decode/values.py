"""What decoding is asked for, the lines that grow token by token, and what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from r1core.api import ConstraintState, Reason
from r1core.data.answers import Growing
from r1core.decode.constraints import thinks

Finish = Literal["eos", "stop", "length", "trimmed", "unmet", "dead_end", "recheck", ""]
"""How an answer ended: by its end-of-sequence, a stop string, the token limit; cut back from one of the two to where
the constraints let a text end; at one of the two with something required still missing; with no token left; refused by
the recheck of its text."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to pick tokens. `temperature = 0` is greedy; sampling draws from `(seed, row, position)`.

    Parameters
    ----------
    max_new_tokens : of the answer; reasoning before it is not counted.
    beams : width of the beam search; 1 is none. Beams are not sampled.
    length_penalty : exponent of the length that a beam's log-probability is divided by.
    stop : texts before which an answer ends.
    kv_bits : bits of a number of the key/value cache, 4, 5 or 6; 0 keeps what the model computes.
    reasoning : tokens of reasoning before the answer, for models that have it; 0 is none.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    beams: int = 1
    length_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    kv_bits: int = 0
    reasoning: int = 0

    def __post_init__(self) -> None:
        if self.beams > 1 and self.temperature:
            raise ValueError("beam search takes the most probable tokens: temperature must be 0")
        if self.beams < 1 or "" in self.stop:
            raise ValueError("beams must be at least 1, and a stop string is not empty")


@dataclass(frozen=True, slots=True)
class Intervention:
    """A token that the model preferred and a constraint refused: its place, the reasons, what came instead."""

    position: int
    refused: int
    taken: int | None
    reasons: tuple[Reason, ...]


@dataclass(slots=True)
class Completion:
    """One generated answer; `tokens` without the end-of-sequence token.

    `tail` : what a stop string left of the token that it cut.
    `failure` : why the answer failed, naming the rules; "" for one that did not.
    `withheld` : nothing of the answer, its given start included, may be shown.
    """

    tokens: list[int] = field(default_factory=list)
    finish: Finish = ""
    interventions: list[Intervention] = field(default_factory=list)
    failure: str = ""
    tail: bytes = b""
    withheld: bool = False


@dataclass(slots=True, eq=False)
class Line:
    """One row's answer up to a token; lines share what stands before them.

    Parameters
    ----------
    row : the prompt that it answers.
    state : of the row's constraints, behind the token.
    score : sum of the tokens' log-probabilities, for beams.
    place : where the pass that read its token has it.
    answer : the reader of causal spans, where the run has such kinds.
    before_answer : tokens of reasoning, marks and line breaks included.
    """

    row: int
    state: ConstraintState | None
    before: Line | None = None
    token: int = -1
    score: float = 0.0
    intervention: Intervention | None = None
    place: int = 0
    answer: Growing | None = None
    before_answer: int = 0

    def back(self) -> Iterator[Line]:
        """This line, the one before it, and so on, without the empty one."""
        line = self
        while line.before is not None:
            yield line
            line = line.before

    def tokens(self) -> list[int]:
        """All tokens, in order."""
        return [line.token for line in self.back()][::-1]

    def interventions(self) -> list[Intervention]:
        """All interventions, in order."""
        return [line.intervention for line in self.back() if line.intervention is not None][::-1]

    def then(self, token: int, state: ConstraintState | None, score: float, intervention: Intervention | None) -> Line:
        """The line one token further on."""
        before = self.before_answer + thinks(state)
        return Line(self.row, state, self, token, score, intervention, answer=self.answer, before_answer=before)
