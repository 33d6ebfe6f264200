"""A closed label set as a byte automaton: the text is exactly one of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import Reason, UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CITATION = "the task's label set"


class ChoiceAutomaton:
    """Trie over the labels' UTF-8 bytes; ends only after a complete label. Implements `api.ByteAutomaton`.

    A label may be a prefix of another one ("Eye" and "Eye and ear"): both stay reachable.

    Raises
    ------
    UserError : for no label, an empty label or a label given twice.
    """

    start = 0

    def __init__(self, labels: Sequence[str]) -> None:
        if not labels:
            raise UserError("constrained choice needs at least one label, found none", fix="give the task `choices`")
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if "" in labels or repeated:
            found = f"labels given twice: {repeated}" if repeated else "an empty label"
            raise UserError(f"constrained choice found {found}", fix="remove it from the task's `choices`")
        self.labels = tuple(labels)
        children: list[dict[int, int]] = [{}]
        ends: set[int] = set()
        for label in labels:
            node = 0
            for byte in label.encode():
                if byte not in children[node]:
                    children.append({})
                    children[node][byte] = len(children) - 1
                node = children[node][byte]
            ends.add(node)
        self._rows = np.full((len(children), 256), -1, dtype=np.int32)
        for node, edges in enumerate(children):
            for byte, child in edges.items():
                self._rows[node, byte] = child
        self._ends = frozenset(ends)

    def row(self, state: int) -> NDArray[np.int32]:
        """(256,) int32: the next state for each byte, -1 where no label goes on with it."""
        row: NDArray[np.int32] = self._rows[state]
        return row

    def may_end(self, state: int) -> bool:
        """Whether the bytes so far are a complete label."""
        return state in self._ends

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """Say why `data` is refused in `state` (b"" asks about ending); () when it is not."""
        if not data:
            return () if self.may_end(state) else (Reason("choices", _CITATION, "ends before a label is complete"),)
        for byte in data:
            state = int(self._rows[state, byte])
            if state < 0:
                shown = data.decode("utf-8", "backslashreplace")
                return (Reason("choices", _CITATION, f"no label goes on with {shown!r}"),)
        return ()
