"""Reasoning while it is generated: its bounds, what is held behind it, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.api import ConstraintState, Example, Message, UserError
from r1core.decode.choices import ChoiceAutomaton
from r1core.decode.constraints import DeadEnd, allowed_bool, thinks
from r1core.decode.generate import Decoding
from r1core.decode.hold import Phrases
from r1core.decode.lift import lift
from r1core.decode.reasoning import reasoned
from r1core.decode.session import Session
from r1core.decode.vocabulary import Vocabulary
from r1core.model.probe import Compute
from r1core.selection import Selection
from r1core.testing.families import family_dir, reasoning_tokenizer
from r1core.workbench import open_bench

from .families import FAMILIES

LABELS = ("Cardiology", "Cardio", "Neurology")
WRITES_MARKS = {name: made for name, made in FAMILIES.items() if not name.startswith("word_piece")}
VOCABULARIES = {"marks as tokens": lambda: reasoning_tokenizer("free"), **WRITES_MARKS}
AUTOMATON = ChoiceAutomaton(LABELS)


@pytest.fixture(scope="module", params=VOCABULARIES)
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    return Vocabulary.from_tokenizer(VOCABULARIES[request.param]()).inside


def held(vocabulary: Vocabulary) -> ConstraintState:
    return lift(AUTOMATON, vocabulary)


def written(state: ConstraintState, vocabulary: Vocabulary, seed: int, most: int = 400) -> tuple[bytes, int]:
    """A random walk along the masks to the end: the bytes, and how many tokens stood before the answer."""
    rng, data, before = np.random.default_rng(seed), b"", 0
    for _ in range(most):
        allowed = np.flatnonzero(allowed_bool(state.mask(), vocabulary.size))
        for token in rng.choice(vocabulary.size, 20):
            told = token in allowed
            asked = getattr(state, "allows", None)
            assert asked is None or asked(int(token)) == told
            assert told == (not state.explain(int(token)))
        token = int(rng.choice(allowed))
        if token in vocabulary.eos_ids:
            return data, before
        data += vocabulary.token_bytes[token]
        state = state.advance(token)
        before += thinks(state)
    raise AssertionError("the walk never ended")


@given(seed=st.integers(0, 2**32), budget=st.integers(0, 12), inside=st.booleans())
@settings(max_examples=40, deadline=None)
def test_whatever_is_reasoned_a_label_follows(vocabulary: Vocabulary, seed: int, budget: int, inside: bool) -> None:
    state = reasoned(held(vocabulary), vocabulary, budget, inside=inside)
    data, before = written(state, vocabulary, seed)
    block, closed, answer = data.rpartition(b"</think>")
    assert inside or not closed or block.startswith(b"<think>")
    assert bool(closed) == (inside or before > 0)
    breaks = len(answer) - len(answer.lstrip(b"\n"))
    assert breaks <= 2
    assert answer.lstrip(b"\n").decode() in LABELS
    assert before <= budget + len("<think></think>") + 2
    assert block.count(b"</think>") == 0


def test_an_answer_may_come_at_once_where_the_prompt_is_free(vocabulary: Vocabulary) -> None:
    state, walked = reasoned(held(vocabulary), vocabulary, 5, inside=False), held(vocabulary)
    for token in bytes_to_tokens(vocabulary, b"Cardio"):
        state, walked = state.advance(token), walked.advance(token)
        assert not thinks(state)
        assert state.key == walked.key
    assert all(state.mask() is not None and not state.explain(eos) for eos in vocabulary.eos_ids)


def test_a_vocabulary_that_cannot_write_the_end_stops_where_it_would_have_to() -> None:
    vocabulary = Vocabulary.from_tokenizer(FAMILIES["word_piece"]()).inside
    with pytest.raises(DeadEnd, match="reasoning"):
        reasoned(None, vocabulary, 0, inside=True).mask()


def bytes_to_tokens(vocabulary: Vocabulary, data: bytes) -> list[int]:
    found = []
    while data:
        pairs = ((i, t) for i, t in enumerate(vocabulary.token_bytes) if t and data.startswith(t))
        token, said = max((p for p in pairs if p[0] not in vocabulary.special_ids), key=lambda p: len(p[1]))
        found.append(token)
        data = data[len(said) :]
    return found


def test_the_block_cannot_end_the_text_and_says_why(vocabulary: Vocabulary) -> None:
    state = reasoned(None, vocabulary, 3, inside=True)
    (eos, *_) = vocabulary.eos_ids
    assert [reason.rule for reason in state.explain(eos)] == ["reasoning"]
    for token in bytes_to_tokens(vocabulary, b"abc")[:3]:
        state = state.advance(token)
    with pytest.raises(ValueError, match="banned"):
        state.advance(eos)


PLUGIN = """
from r1core import api


class Names:
    name = "names/never"
    trims = True

    def start(self, request):
        return None

    def recheck(self, example, text):
        return [api.Reason("never-warfarin", "made up", "warfarin")] if "warfarin" in text.lower() else []

    def fingerprint(self):
        return "1"


@api.hookimpl
def decode_constraint():
    return [Names()]
"""


def opened(folder: Path, template: str, plugin: str = "") -> Session:
    family_dir(folder / "model", "qwen3", template=template)
    (folder / "names.py").write_text(plugin)
    (folder / "d.jsonl").write_text('{"text": "heart", "answer": "Cardiology"}')
    (folder / "recipe.toml").write_text(
        '[run]\nname = "own"\n[model]\npath = "model"\n[data.files]\ntrain = "d.jsonl"\n'
    )
    files = (folder / "names.py",) if plugin else ()
    bench = open_bench(Selection(recipe=folder / "recipe.toml", run=folder / "run", files=files))
    return Session(bench, Compute("cpu", "fp32", 1, 0.0), adapted=False)


@pytest.fixture(scope="module", params=["free", "open"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    return opened(tmp_path_factory.mktemp("reasoning"), request.param)


ASKED = [Example(str(i), (Message("user", t),), "own") for i, t in enumerate(("heart?", "A longer one: lungs"))]


def tells(session: Session, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the model prefer these tokens, one after another, and end of sequence behind them."""
    ids = iter([*session.renderer.start_ids(text), *[session.bench.tokenizer.eos_token_id] * 200])
    import r1core.decode.generate as generate
    from r1core.decode.search import Draw

    grow = Draw.grow

    def told(self: Draw, lines: Any, logits: torch.Tensor, position: int) -> Any:
        logits = logits.clone()
        logits[:, next(ids)] = 1e4
        return grow(self, lines, logits, position)

    monkeypatch.setattr(generate.Draw, "grow", told)


@pytest.mark.parametrize("beams", [1, 3])
def test_labels_are_held_behind_reasoning_and_the_budget_holds(session: Session, beams: int) -> None:
    decoding = Decoding(30, beams=beams, reasoning=7)
    answers = session.answer(ASKED, decoding, [session.constraint(e, LABELS) for e in ASKED])
    for answer in answers:
        assert answer.text in LABELS
        assert answer.completion.finish == "eos"
        text = session.text(answer.completion.tokens)
        assert text.rpartition("</think>")[2].lstrip("\n") == answer.text
        if session.renderer.blocks.prompt == "open":  # type: ignore[union-attr]
            assert answer.reasoning
            closing = answer.completion.tokens.index(session.bench.tokenizer.convert_tokens_to_ids("</think>"))
            assert closing <= 7


def test_a_batch_reasons_as_each_row_alone(session: Session) -> None:
    decoding = Decoding(9, reasoning=5)
    together = session.answer(ASKED, decoding)
    for example, one in zip(ASKED, together, strict=True):
        (alone,) = session.answer([example], decoding)
        assert (alone.text, alone.reasoning) == (one.text, one.reasoning)
        assert "<think>" not in one.text


def test_the_tokens_of_the_answer_are_counted_from_where_it_begins(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead = session.renderer.blocks.lead  # type: ignore[union-attr]
    answer = "Warfarin and aspirin together raise the risk of bleeding."
    tells(session, monkeypatch, f"{lead}one two\n</think>\n\n{answer}")
    (found,) = session.answer(ASKED[:1], Decoding(4, reasoning=40))
    assert found.reasoning == "one two"
    assert session.renderer.start_ids(answer)[:4] == session.renderer.start_ids(found.text)[:4]
    assert answer.startswith(found.text)
    assert found.completion.finish == "length"


def test_a_stop_string_is_looked_for_in_the_answer_alone(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    lead = session.renderer.blocks.lead  # type: ignore[union-attr]
    tells(session, monkeypatch, f"{lead}yes. stop here\n</think>\n\nGo on, then stop.")
    (found,) = session.answer(ASKED[:1], Decoding(40, reasoning=40, stop=("stop", "\n\n")))
    assert found.reasoning == "yes. stop here"
    assert found.text == "Go on, then "
    assert found.completion.finish == "stop"


def test_a_required_phrase_has_to_stand_in_the_answer(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    lead = session.renderer.blocks.lead  # type: ignore[union-attr]
    tells(session, monkeypatch, f"{lead}heart\n</think>\n\nThe heart.")
    hold = session.constraint(ASKED[0], further=[Phrases(("heart",))])
    (found,) = session.answer(ASKED[:1], Decoding(40, reasoning=40), [hold])
    assert (found.text, found.completion.finish) == ("The heart.", "eos")


def test_without_reasoning_labels_are_scored_and_answers_given_behind_an_empty_block(session: Session) -> None:
    tree = session.label_tree(LABELS)
    free, scores = session.answer_and_score(ASKED, Decoding(5), tree)
    thought, same = session.answer_and_score(ASKED, Decoding(5, reasoning=4), tree)
    assert np.allclose(scores, same, atol=1e-5)
    assert all(not answer.reasoning for answer in free)
    ids = [session.bench.tokenizer.apply_chat_template(
        [{"role": "user", "content": e.messages[0].content}], tokenize=False, add_generation_prompt=True
    ) for e in ASKED]  # fmt: skip
    closing = session.renderer.blocks.block()  # type: ignore[union-attr]
    for row, prompt in enumerate(ids):
        given = session.bench.tokenizer(prompt + closing, add_special_tokens=False)["input_ids"]
        paths = [[*session.renderer.response_ids(label)] for label in LABELS]
        with torch.no_grad():
            each = [_logprob(session, given, path, paths) for path in paths]
        assert np.allclose(scores[row], each, atol=1e-4)
    assert len(thought) == len(ASKED)


def _logprob(session: Session, given: list[int], path: list[int], paths: list[list[int]]) -> float:
    """The path's log-probability among the tokens that some label goes on with, by one forward pass a path."""
    logits = session.model(input_ids=torch.tensor([given + path])).logits[0].float()
    total = 0.0
    for depth, token in enumerate(path):
        others = sorted({p[depth] for p in paths if p[:depth] == path[:depth] and len(p) > depth})
        choice = logits[len(given) + depth - 1, others].log_softmax(-1)
        total += float(choice[others.index(token)])
    return total


def test_a_given_start_comes_without_reasoning(session: Session) -> None:
    (found,) = session.answer(ASKED[:1], Decoding(5, reasoning=9), prefix="The ")
    (plain,) = session.answer(ASKED[:1], Decoding(5), prefix="The ")
    assert found.text == plain.text
    assert not found.reasoning


def test_half_a_block_is_no_answer(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    tells(session, monkeypatch, "<think>no end")
    (found,) = session.answer(ASKED[:1], Decoding(6))
    assert (found.text, found.completion.finish) == ("", "unmet")
    assert "never closed" in found.completion.failure


def test_reasoning_that_breaks_a_rule_is_withheld_and_the_answer_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened(tmp_path, "open", PLUGIN)
    tells(session, monkeypatch, "Warfarin\n</think>\n\nThe lungs.")
    (found,) = session.answer(ASKED[:1], Decoding(40, reasoning=40), [session.constraint(ASKED[0])])
    assert (found.text, found.reasoning, found.against) == ("The lungs.", "", ("never-warfarin",))
    monkeypatch.undo()
    tells(session, monkeypatch, "heart\n</think>\n\nWarfarin")
    (found,) = session.answer(ASKED[:1], Decoding(40, reasoning=40), [session.constraint(ASKED[0])])
    assert (found.text, found.reasoning, found.completion.finish) == ("", "", "recheck")
    unasked = PLUGIN.replace("def recheck", "def _recheck")
    monkeypatch.undo()
    (tmp_path / "more").mkdir()
    session = opened(tmp_path / "more", "open", unasked)
    tells(session, monkeypatch, "heart\n</think>\n\nThe lungs.")
    (found,) = session.answer(ASKED[:1], Decoding(40, reasoning=40), [session.constraint(ASKED[0])])
    assert (found.text, found.reasoning, found.against) == ("The lungs.", "", ("names/never",))


@pytest.mark.parametrize("template", ["plain", "closed"])
def test_reasoning_is_refused_where_the_template_has_no_room(template: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="reasoning_tokens = 4, and the model's chat template"):
        opened(tmp_path, template).answer(ASKED, Decoding(5, reasoning=4))


def test_marks_that_a_tokenizer_calls_special_are_text_all_the_same(tmp_path: Path) -> None:
    import json

    family_dir(tmp_path / "model", "qwen3", template="open")
    file = tmp_path / "model/tokenizer.json"
    stored = json.loads(file.read_text())
    for token in stored["added_tokens"]:
        token["special"] = True
    file.write_text(json.dumps(stored))
    (tmp_path / "d.jsonl").write_text('{"text": "heart", "answer": "Cardiology"}')
    (tmp_path / "recipe.toml").write_text(
        '[run]\nname = "own"\n[model]\npath = "model"\n[data.files]\ntrain = "d.jsonl"\n'
    )
    bench = open_bench(Selection(recipe=tmp_path / "recipe.toml", run=tmp_path / "run"))
    session = Session(bench, Compute("cpu", "fp32", 1, 0.0), adapted=False)
    answers = session.answer(ASKED, Decoding(20, reasoning=3), [session.constraint(e, LABELS) for e in ASKED])
    assert all(answer.text in LABELS and answer.reasoning for answer in answers)


def test_a_reward_is_shown_the_answer() -> None:
    from r1core.compose import RewardSum
    from r1core.testing.families import TEMPLATES

    class Length:
        name = "t/length"

        def __call__(self, prompts: Any, completions: Any, **fields: Any) -> list[float]:
            return [float(len(c)) for c in completions]

        def fingerprint(self) -> str:
            return "1"

    from r1core.data.thinking import answer_of, blocks_of

    blocks = blocks_of(TEMPLATES["open"], lambda messages: f"{messages[0].content}<think>\n")
    texts = ["so it is\n</think>\n\nyes", "it never ends"]
    assert RewardSum([Length()], {}, answer_of(blocks, reasons=True))(["q", "q"], texts) == [3.0, 0.0]
    assert RewardSum([Length()], {}, answer_of(None, reasons=False))(["q", "q"], texts) == [
        float(len(t)) for t in texts
    ]
