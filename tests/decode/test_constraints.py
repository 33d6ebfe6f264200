"""Several constraints at once: intersection, dead ends, and whose rules are named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from r1core.api import ConstraintState, Example, Reason, TokenMask
from r1core.decode.choices import ChoiceAutomaton
from r1core.decode.constraints import DeadEnd, Request, allowed_bool, intersect
from r1core.decode.vocabulary import Vocabulary
from r1core.testing.tiny import tiny_tokenizer

VOCABULARY = Vocabulary.from_tokenizer(tiny_tokenizer())
REQUEST = Request(Example("one", (), "task"), VOCABULARY)


@dataclass(frozen=True)
class Bans:
    """Bans a fixed set of tokens, given sparse or packed; counts how far it was advanced."""

    tokens: tuple[int, ...]
    packed: bool = False
    depth: int = 0

    @property
    def key(self) -> int:
        return self.depth

    def mask(self) -> TokenMask:
        if not self.packed:
            return TokenMask(banned=np.array(sorted(self.tokens), dtype=np.int32))
        allowed = np.ones(8, dtype=bool)
        allowed[list(self.tokens)] = False
        return TokenMask(allowed=np.packbits(allowed, bitorder="little"))

    def advance(self, token_id: int) -> Bans:
        return Bans(self.tokens, self.packed, self.depth + 1)

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        return (Reason(f"bans-{token_id}", "test", str(token_id)),) if token_id in self.tokens else ()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_only_what_every_constraint_allows_is_left(first: bool, second: bool) -> None:
    state = intersect([("a", Bans((0, 1, 2), first)), ("b", Bans((2, 3), second))], 8)
    assert allowed_bool(state.mask(), 8).tolist() == [False, False, False, False, True, True, True, True]
    assert state.explain(2) == (Reason("bans-2", "test", "2"),)
    assert state.explain(3) == (Reason("bans-3", "test", "3"),)
    assert state.explain(5) == ()


def test_advancing_advances_all_and_changes_nothing_behind() -> None:
    state = intersect([("a", Bans((0,))), ("b", Bans((1,)))], 8)
    key, after = state.key, state.advance(5)
    assert after.key == (("a", 1), ("b", 1))
    assert state.key == key == (("a", 0), ("b", 0))
    assert isinstance(state, ConstraintState)


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_left_stops_and_names_constraints_and_rules(packed: bool) -> None:
    state = intersect([("p/low", Bans((0, 1, 2, 3), packed)), ("p/high", Bans((4, 5, 6, 7), packed))], 8)
    with pytest.raises(DeadEnd, match=r"p/low and p/high.*bans-0.*bans-7.*never relaxed") as caught:
        state.mask()
    assert caught.value.constraints == ("p/low", "p/high")
    assert {r.rule for r in caught.value.reasons} == {f"bans-{i}" for i in range(8)}


def test_one_constraint_alone_can_be_a_dead_end() -> None:
    with pytest.raises(DeadEnd, match="bans-3"):
        intersect([("p/all", Bans(tuple(range(8))))], 8).mask()


def test_an_intersection_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        intersect([], 8)


def test_label_sets_without_a_common_label_stop() -> None:
    def lifted(*labels: str) -> Any:
        return REQUEST.lift(ChoiceAutomaton(labels))

    state = intersect([("one", lifted("cab")), ("two", lifted("bad"))], VOCABULARY.size)
    with pytest.raises(DeadEnd, match="choices"):
        state.mask()
    common = intersect([("one", lifted("cab", "dab")), ("two", lifted("dab", "bad"))], VOCABULARY.size)
    text = b""
    for _ in range(9):
        (token,) = np.flatnonzero(allowed_bool(common.mask(), VOCABULARY.size))[:1]
        if int(token) in VOCABULARY.eos_ids:
            break
        text += VOCABULARY.token_bytes[int(token)]
        common = common.advance(int(token))
    assert text == b"dab"
