"""The plugin `shortlist`: an answer is one of the candidates that the record's own facts list, as written.

`facts = {"candidates": ["Usher syndrome type 1", ...]}`, as a retriever or the normaliser proposes them; a record
whose facts list none is answered freely. What is said was proposed, which does not make it right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from r1core.api import (
    ConstraintState,
    Context,
    DecodeConstraint,
    DecodeRequest,
    Example,
    Plugin,
    Reason,
    UserError,
    hookimpl,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FACT, RULE = "candidates", "shortlist/candidates"
CITATION = ""  # what asks for a form of the answer cites nothing, and `r1core generate` does not list it


class Trie:
    """Byte automaton of texts that may stand as a whole answer; one may begin another. Implements `ByteAutomaton`."""

    start = 0

    def __init__(self, texts: Sequence[str]) -> None:
        self._children: list[dict[int, int]] = [{}]
        self._ends: set[int] = set()
        for text in texts:
            node = 0
            for byte in text.encode():
                if byte not in self._children[node]:
                    self._children[node][byte] = len(self._children)
                    self._children.append({})
                node = self._children[node][byte]
            self._ends.add(node)

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) int32: the next state for each byte, -1 where no candidate goes on with it."""
        import numpy as np

        row = np.full(256, -1, np.int32)
        for byte, child in self._children[state].items():
            row[byte] = child
        return row

    def may_end(self, state: int) -> bool:
        """Whether the bytes so far are a candidate."""
        return state in self._ends

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """Say why `data` is refused in `state` (b"" asks about ending); () when it is not."""
        if not data:
            return () if self.may_end(state) else (Reason(RULE, CITATION, "ends before a candidate is complete"),)
        for byte in data:
            state = self._children[state].get(byte, -1)
            if state < 0:
                shown = data.decode("utf-8", "backslashreplace")
                return (Reason(RULE, CITATION, f"no candidate goes on with {shown!r}"),)
        return ()


class Shortlist:
    """Keeps an answer within the candidates of its record."""

    name = RULE
    requires = True

    def start(self, request: DecodeRequest) -> ConstraintState | None:
        """Begin at the root of the candidates' trie; None where the facts list none."""
        candidates = candidates_of(request.example)
        return request.lift(Trie(candidates)) if candidates else None

    def recheck(self, example: Example, text: str) -> Sequence[Reason]:
        """Compare the whole answer with the list itself."""
        candidates = candidates_of(example)
        return () if not candidates or text in candidates else (Reason(RULE, CITATION, f"{text!r} is no candidate"),)

    def rules(self, example: Example) -> Sequence[str]:
        """The one rule, where there are candidates."""
        return (RULE,) if candidates_of(example) else ()

    def fingerprint(self) -> str:
        """Of this plugin's only choice: the name of the fact."""
        return hashlib.sha256(FACT.encode()).hexdigest()


def candidates_of(example: Example) -> tuple[str, ...]:
    """The candidates of a record, () where it has none.

    Raises
    ------
    UserError : they are no list of different texts.
    """
    listed = (example.facts or {}).get(FACT, [])
    if not isinstance(listed, list) or not all(isinstance(text, str) and text for text in listed):
        raise UserError(f"facts: {FACT!r} is no list of texts", fix=f'write {{"{FACT}": ["one", "another"]}}')
    return tuple(dict.fromkeys(listed))


class ShortlistPlugin(Plugin):
    """Answers within a record's candidates."""

    @hookimpl
    def decode_constraint(self, ctx: Context) -> Sequence[DecodeConstraint]:
        """The constraint `shortlist/candidates`."""
        return [Shortlist()]
