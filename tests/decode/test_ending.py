"""Answers that stop uninvited (token limit, stop string, dead end), required phrases, prompts, and the recheck."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.api import ConstraintState, DecodeRequest, Example, Message, Reason, TokenMask, UserError
from r1core.decode.audit import audit_record
from r1core.decode.constraints import Request, is_allowed
from r1core.decode.hold import Phrases, hold
from r1core.decode.phrases import MAX_PHRASES, RequiredPhrases
from r1core.decode.session import Answer, Session
from r1core.decode.values import Decoding
from r1core.decode.vocabulary import Vocabulary
from r1core.model.probe import Compute
from r1core.testing.tiny import tiny_tokenizer

from ..conftest import HEART
from .conftest import open_heart, save_adapter

VOCABULARY = Vocabulary.from_tokenizer(tiny_tokenizer())
EXAMPLE = Example("one", (Message("user", "What now?"),), "own")


class WholeWord:
    """Refuses the word "ASA" (bytes, exactly so): its boundary, or the end behind it. Knows what the prompt began."""

    start = 1  # 0: inside another word; 1: at a boundary; 2 to 4: A, AS, ASA
    trims = True

    def row(self, state: int) -> np.ndarray:
        row = np.ones(256, dtype=np.int32)
        for byte in range(256):
            if chr(byte).isalnum():
                row[byte] = state + 1 if 1 <= state <= 3 and byte == b"ASA"[state - 1] else 0
        if state == 4:
            row[row == 1] = -1
        return row

    def may_end(self, state: int) -> bool:
        return state != 4

    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        for byte in data:
            state = int(self.row(state)[byte]) if state >= 0 else -1
        refused = state < 0 or (not data and state == 4)
        return (Reason("no-asa", "Handbook, p. 1", "ASA", "major"),) if refused else ()

    def after(self, prompt: str) -> int:
        return 3 if prompt.endswith("AS") else 1


WHOLE_WORD = WholeWord()


@dataclass
class NoAsa:
    name: str = "acme/no-asa"
    found: tuple[Reason, ...] = ()

    def start(self, request: DecodeRequest) -> ConstraintState:
        return request.lift(WHOLE_WORD)

    def recheck(self, example: Example, text: str) -> Sequence[Reason]:
        return self.found

    def rules(self, example: Example) -> Sequence[str]:
        return ["no-asa@1"]

    def fingerprint(self) -> str:
        return "asa"


@dataclass(frozen=True)
class Forced:
    """Lets only the scripted tokens through, then anything; a text may end anywhere."""

    script: tuple[int, ...]

    @property
    def key(self) -> tuple[int, ...]:
        return self.script

    def mask(self) -> TokenMask:
        allowed = np.ones(VOCABULARY.size, dtype=bool)
        if self.script:
            allowed[:] = False
            allowed[self.script[0]] = True
        return TokenMask(allowed=np.packbits(allowed, bitorder="little"))

    def advance(self, token_id: int) -> Forced:
        return replace(self, script=self.script[1:])

    def may_end(self, data: bytes = b"") -> bool:
        return True

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        return (Reason("script", "", str(token_id)),)


@dataclass
class Script:
    tokens: Sequence[bytes]
    name: str = "acme/script"

    def start(self, request: DecodeRequest) -> ConstraintState:
        return Forced(tuple(VOCABULARY.token_bytes.index(token) for token in self.tokens))

    def fingerprint(self) -> str:
        return "script"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, r1core_tiny_model: Path) -> Session:
    opened = open_heart(tmp_path_factory.mktemp("ending"), r1core_tiny_model, HEART, "[adapter]\nrank = 2")
    save_adapter(opened)
    return Session(opened, Compute("cpu", "fp32", 1, 0.0), adapted=False)


def letters(text: str) -> list[bytes]:
    return [bytes([byte]) for byte in text.encode()]


def ask(session: Session, decoding: Decoding, *constraints: Any, prefix: str = "", prompt: str = "") -> Answer:
    example = Example("one", (Message("user", prompt or "What now?"),), "own")
    held = session.constraint(example, further=constraints)
    return session.answer([example], decoding, [held], prefix=prefix)[0]


@pytest.mark.parametrize("beams", [1, 2])
def test_at_the_token_limit_a_name_is_not_completed_by_the_end(session: Session, beams: int) -> None:
    answer = ask(session, Decoding(7, beams=beams), Script(letters("use ASA")), NoAsa())
    assert (answer.text, answer.completion.finish) == ("use AS", "trimmed")
    longer = ask(session, Decoding(8, beams=beams), Script(letters("use ASAP")), NoAsa())
    assert (longer.text, longer.completion.finish) == ("use ASAP", "length")


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("tokens", [letters("go ASAP!"), [*letters("go "), b"A", b"S", b"A", b"P", b"!"]])
def test_a_stop_string_never_leaves_a_name(session: Session, tokens: list[bytes], beams: int) -> None:
    decoding = Decoding(12, stop=("P!",), beams=beams)
    stopped = ask(session, decoding, Script(tokens), NoAsa())
    assert (stopped.text, stopped.completion.finish) == ("go AS", "trimmed")
    kept = ask(session, replace(decoding, stop=("SAP",)), Script(tokens), NoAsa())
    assert (kept.text, kept.completion.finish) == ("go A", "stop")


def test_a_stop_string_may_cut_a_token_and_span_several(session: Session) -> None:
    token = next(t for t in VOCABULARY.token_bytes if len(t) >= 4 and t.isalpha())
    text = token.decode()
    cut = ask(session, Decoding(6, stop=(text[2:4],)), Script([b"x", token]))
    assert (cut.text, cut.completion.finish) == ("x" + text[:2], "stop")
    spanning = ask(session, Decoding(6, stop=("x" + text[:2],)), Script([b"a", b"x", token]))
    assert (spanning.text, spanning.completion.finish) == ("a", "stop")
    assert spanning.completion.tokens == [VOCABULARY.token_bytes.index(b"a")]
    first_of_two = ask(session, Decoding(6, stop=(text[1:3], text[3])), Script([b"x", token]))
    assert first_of_two.text == "x" + text[0]


def test_a_stop_string_in_another_script_is_found_across_its_bytes(session: Session) -> None:
    answer = ask(session, Decoding(20, stop=("患者",)), Script(letters("no 患患者 x")))
    assert (answer.text, answer.completion.finish) == ("no 患", "stop")


def test_without_constraints_stop_strings_hold_too(session: Session) -> None:
    free = session.answer([EXAMPLE], Decoding(12))[0].text
    stop = free[3:5]
    done = session.answer([EXAMPLE], Decoding(12, stop=(stop,)))[0]
    assert (done.text, done.completion.finish) == (free[: free.index(stop)], "stop")


def test_a_given_start_that_is_a_name_by_itself_is_not_shown(session: Session) -> None:
    after = ask(session, Decoding(1), Script(letters("ASAP")), NoAsa(), prefix="ASA")
    assert (after.text, after.completion.finish) == ("P", "length")
    alone = ask(session, Decoding(3, stop=("P",)), Script(letters("ASAP")), NoAsa(), prefix="ASA")
    assert alone.completion.withheld
    assert alone.completion.finish == "unmet"
    assert "no-asa" in alone.completion.failure


@pytest.mark.parametrize("beams", [1, 2])
def test_what_the_prompt_began_is_not_finished(session: Session, beams: int) -> None:
    decoding = Decoding(2, beams=beams)
    fresh = ask(session, decoding, Script(letters("A!")), NoAsa())
    assert (fresh.text, fresh.completion.finish) == ("A!", "length")
    begun = ask(session, decoding, Script(letters("A!")), NoAsa(), prompt="The word is AS")
    assert (begun.text, begun.completion.finish) == ("", "dead_end")
    assert begun.completion.interventions[-1].reasons


@pytest.mark.parametrize("beams", [1, 3])
def test_required_phrases_hold_the_end_back(session: Session, beams: int) -> None:
    phrase = Phrases(("Ask a doctor",))
    short = ask(session, Decoding(6, beams=beams), phrase)
    assert short.completion.finish == "unmet"
    assert "required-phrase: Ask a doctor" in short.completion.failure
    eos = tiny_tokenizer().eos_token_id
    state = hold(EXAMPLE, [phrase], VOCABULARY).start({})
    assert state is not None
    for byte in b"well, aASK A DOCTO":
        assert not is_allowed(state.mask(), eos)
        state = state.advance(VOCABULARY.token_bytes.index(bytes([byte])))
    assert is_allowed(state.advance(VOCABULARY.token_bytes.index(b"r")).mask(), eos)
    told = ask(session, Decoding(15, beams=beams), Script(letters("ask a doctor")), phrase)
    assert "ask a doctor" in told.text
    assert told.completion.finish in ("length", "eos")
    stopped = ask(session, Decoding(15, beams=beams, stop=("r",)), Script(letters("ask a doctor")), phrase)
    assert (stopped.text, stopped.completion.finish) == ("ask a docto", "unmet")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("abB é", min_size=1, max_size=4), min_size=1, max_size=3), st.text("abB é", max_size=16))
def test_phrases_are_met_exactly_where_a_search_finds_them(phrases: list[str], text: str) -> None:
    phrases = [phrase for phrase in dict.fromkeys(phrases) if phrase.strip()]
    if not phrases:
        return
    automaton = RequiredPhrases({phrase: [Reason(phrase, "", phrase)] for phrase in phrases})
    state = automaton.start
    for byte in text.encode():
        state = int(automaton.row(state)[byte])
    missing = [p for p in phrases if p.encode().lower() not in text.encode().lower()]
    assert automaton.may_end(state) == (not missing)
    assert [reason.rule for reason in automaton.explain(state, b"")] == missing


@pytest.mark.parametrize("phrases", [(), ("  ",), tuple(map(str, range(MAX_PHRASES + 1)))])
def test_phrases_that_cannot_be_required_are_refused(phrases: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="required phrases"):
        Request(EXAMPLE, VOCABULARY).require(dict.fromkeys(phrases, ()))


@pytest.mark.parametrize("beams", [1, 2])
def test_a_finding_of_the_recheck_withholds_the_answer(session: Session, beams: int) -> None:
    finding = Reason("no-asa@1", "Handbook, p. 1", "ASA")
    made = NoAsa(found=(finding,))
    example = replace(EXAMPLE)
    held = session.constraint(example, further=[Script(letters("secret")), made])
    answer = session.answer([example], Decoding(6, beams=beams), [held], prefix="s")[0]
    assert (answer.text, answer.completion.finish) == ("", "recheck")
    assert answer.recheck == (("acme/no-asa", finding),)
    assert "no-asa@1" in answer.completion.failure
    record = audit_record(answer, "", held)
    assert record["finish"] == "recheck"
    assert record["recheck"] == {
        "by": ["acme/no-asa"], "found": [{"constraint": "acme/no-asa", "rule": "no-asa@1"}],
    }  # fmt: skip
    assert record["text_sha256"] == hashlib.sha256(b"").hexdigest()
    assert "secret" not in str(record)


def test_a_failed_answer_is_rechecked_for_what_stands_in_it_and_not_for_what_it_lacks(session: Session) -> None:
    phrase, script = Phrases(("ask a doctor",)), Script(letters("secret"))
    clean = ask(session, Decoding(6), script, phrase, NoAsa())
    assert (clean.text, clean.completion.finish, clean.recheck) == ("secret", "unmet", ())
    finding = Reason("no-asa@1", "Handbook, p. 1", "ASA")
    found = ask(session, Decoding(6), script, phrase, NoAsa(found=(finding,)))
    assert (found.text, found.completion.finish) == ("", "recheck")
    assert found.recheck == (("acme/no-asa", finding),)


def test_the_audit_record_says_what_held_and_what_came_out(session: Session) -> None:
    held = session.constraint(EXAMPLE, further=[Script(letters("use ASAP")), NoAsa()])
    answer = session.answer([EXAMPLE], Decoding(8), [held])[0]
    record = audit_record(answer, answer.text, held)
    assert record["constraints"] == [
        {"name": "acme/no-asa", "fingerprint": "asa"}, {"name": "acme/script", "fingerprint": "script"},
    ]  # fmt: skip
    assert (record["rules"], record["rules_intervened"]) == (["no-asa@1"], ["no-asa", "script"][1:])
    assert record["text_sha256"] == hashlib.sha256(b"use ASAP").hexdigest()
    assert (record["finish"], record["tokens"]) == ("length", 8)
    assert len(record["interventions"]) == len(answer.completion.interventions) > 0
    free = audit_record(session.answer([EXAMPLE], Decoding(2))[0], "x", None)
    assert (free["constraints"], free["recheck"]) == ([], {"by": [], "found": []})


def test_rows_of_a_batch_have_rules_of_their_own(session: Session) -> None:
    scripts = [Script(letters("use ASA")), Script(letters("use ASA")), None]
    examples = [EXAMPLE] * 3
    held = [
        session.constraint(EXAMPLE, further=[scripts[0], NoAsa()]),
        session.constraint(EXAMPLE, further=[scripts[1]]),
        session.constraint(EXAMPLE),
    ]
    for decoding in (Decoding(7), Decoding(7, beams=2), Decoding(7, temperature=2.0)):
        done = session.answer(examples, decoding, held)
        assert [a.text for a in done[:2]] == ["use AS", "use ASA"]
        assert done[2].text == session.answer([EXAMPLE] * 3, decoding)[2].text
