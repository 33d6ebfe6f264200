"""Where an answer ends, and what then stands: a text is never cut where its constraints do not let it end.

A constraint allows or refuses the end-of-sequence token like any other. The token limit, a stop string and a dead end
come uninvited: there the text is cut back to the last place where every constraint that forbids something lets it end
(a name that counts as a whole word is complete once the text ends behind it). Where something required is missing
(a phrase, the rest of a label or document), nothing can be cut, and the answer is `unmet`.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from r1core.api import ConstraintState, Reason
from r1core.decode.constraints import may_end, parts_of, thinks
from r1core.decode.values import Completion, Finish, Line
from r1core.decode.vocabulary import Vocabulary


class Stops:
    """Finds stop strings in the bytes of a growing answer.

    Parameters
    ----------
    at_start : whether an answer's first token starts the text (no start was given).
    """

    def __init__(self, texts: Sequence[str], vocabulary: Vocabulary, *, at_start: bool) -> None:
        self._texts = [text.encode() for text in texts]
        self._reach = max(map(len, self._texts), default=0) - 1
        self._vocabulary, self._at_start = vocabulary, at_start

    def cut(self, line: Line) -> tuple[Line, bytes] | None:
        """Where a stop string begins that the newest token completes: the line before it, bytes of the next token.

        Reasoning before the answer is not looked at.
        """
        lines, pieces, held = [], [], 0
        for one in line.back():
            if thinks(one.state):
                break
            lines.append(one)
            pieces.append(self._bytes(one))
            held += len(pieces[-1]) if len(pieces) > 1 else 0
            if held >= self._reach:
                break
        if not lines:
            return None
        data = b"".join(reversed(pieces))
        old = len(data) - len(pieces[0])
        found = [data.find(text, max(0, old - len(text) + 1)) for text in self._texts]
        at = min((place for place in found if place >= 0), default=-1)
        if at < 0:
            return None
        while pieces and at >= len(pieces[-1]):
            at -= len(pieces.pop())
            lines.pop()
        whole = lines[-1].before
        assert whole is not None
        return whole, pieces[-1][:at]

    def _bytes(self, line: Line) -> bytes:
        assert line.before is not None
        token = line.token
        return self._vocabulary.bytes_of(token, self._at_start and line.before.before is None)


@dataclass(frozen=True, slots=True)
class Ending:
    """What ends an answer besides the token limit."""

    eos_ids: Set[int]
    stops: Stops | None = None

    def refusing(self, state: ConstraintState | None, data: bytes = b"") -> list[ConstraintState]:
        """The constraints that do not let the text end behind these further bytes."""
        return [] if state is None else [s for s in parts_of(state) if not may_end(s, self.eos_ids, data)]

    def close(self, line: Line, finish: Finish, tail: bytes = b"", failure: str = "") -> Completion:
        """What stands of a line that ends here; `tail` is a part of a further token."""
        done = Completion(line.tokens(), finish, line.interventions(), failure, tail)
        if finish == "eos":
            return done
        at, left = line, tail
        refusing = self.refusing(at.state, left)
        while any(_trims(state) for state in refusing) and (left or at.before is not None):
            at, left = (at, b"") if left else (at.before or at, b"")
            refusing = self.refusing(at.state, left)
        if at is not line or left != tail:
            done.tokens, done.tail = at.tokens(), left
            done.finish = "trimmed" if finish != "dead_end" else finish
        if refusing:
            done.withheld = any(_trims(state) for state in refusing)  # the given start itself may not stand alone
            if finish != "dead_end":
                done.finish, done.failure = "unmet", self._unmet(refusing)
        return done

    def _unmet(self, refusing: Sequence[ConstraintState]) -> str:
        eos = min(self.eos_ids)
        reasons: list[Reason] = [reason for state in refusing for reason in state.explain(eos)]
        told = "; ".join(dict.fromkeys(f"{r.rule}: {r.text}" for r in reasons)) or "a constraint does not let it end"
        return f"the answer ended before all that it is held to was met ({told})"


def _trims(state: ConstraintState) -> bool:
    return bool(getattr(state, "trims", False))
