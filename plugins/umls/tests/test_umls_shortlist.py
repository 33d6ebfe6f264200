"""Answers within a record's candidates: the trie against the core's own label set, and the list itself as the judge."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from r1core_umls.shortlist import Shortlist, Trie, candidates_of

from r1core.api import Example, Message, UserError
from r1core.decode.choices import ChoiceAutomaton

NAMES = ("Usher syndrome", "Usher syndrome type 1", "Sjögren syndrome", "Pendred syndrome", "46,XY sex reversal 1")


def example(**facts: Any) -> Example:
    return Example("1", (Message("user", "Which?"),), "diagnosis", facts=facts or None)


@dataclass
class Request:
    example: Example
    lifted: list[Trie] = field(default_factory=list)

    def lift(self, automaton: Trie) -> str:
        self.lifted.append(automaton)
        return "state"


def accepts(automaton: Any, text: bytes) -> bool:
    state = automaton.start
    for byte in text:
        state = int(automaton.row(state)[byte])
        if state < 0:
            return False
    return bool(automaton.may_end(state))


def test_the_trie_accepts_what_the_label_set_of_the_core_accepts() -> None:
    ours, theirs, draw = Trie(NAMES), ChoiceAutomaton(NAMES), random.Random(0)
    assert all(accepts(ours, name.encode()) for name in NAMES)
    for _ in range(2000):
        text = bytearray(draw.choice(NAMES).encode()[: draw.randrange(30)])
        if text and draw.random() < 0.3:
            text[draw.randrange(len(text))] = draw.randrange(256)
        assert (
            accepts(ours, bytes(text)) == accepts(theirs, bytes(text)) == (bytes(text) in [n.encode() for n in NAMES])
        )


def test_a_refusal_is_explained() -> None:
    trie = Trie(NAMES)
    assert trie.explain(trie.start, b"Usher") == ()
    assert "'X'" in trie.explain(trie.start, b"X")[0].text
    assert trie.explain(trie.start, b"")[0].text == "ends before a candidate is complete"


def test_a_record_without_candidates_is_answered_freely() -> None:
    request = Request(example())
    assert Shortlist().start(request) is None  # type: ignore[arg-type]
    assert Shortlist().recheck(request.example, "anything") == ()
    assert Shortlist().rules(request.example) == ()


def test_the_facts_say_what_may_be_answered() -> None:
    request = Request(example(candidates=[*NAMES, NAMES[0]], phenotypes=["HP:1"]))
    assert Shortlist().start(request) == "state"  # type: ignore[arg-type]
    assert accepts(request.lifted[0], NAMES[0].encode())
    assert Shortlist().recheck(request.example, NAMES[2]) == ()
    assert [one.rule for one in Shortlist().recheck(request.example, "Usher")] == ["shortlist/candidates"]


@pytest.mark.parametrize("listed", ["Usher syndrome", [1], [""], {"a": 1}])
def test_facts_of_another_shape_are_told(listed: Any) -> None:
    with pytest.raises(UserError, match="no list of texts"):
        candidates_of(example(candidates=listed))
