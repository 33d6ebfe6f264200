"""Decoding over a packed key/value cache: rows in one packed sequence, beams, and the command line."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from r1core.api import UserError
from r1core.decode.generate import Decoding, decode
from r1core.decode.prefill import Prefilled, prefill
from r1core.model.kv.cache import PackedCache
from r1core.model.kv.held import Held
from r1core.model.layers import ExtraLayers
from r1core.recipe.schema import Generate
from r1core.testing import tiny_r1
from r1core.testing.tiny import tiny_model

SHARED = tuple(range(10, 210))
PROMPTS = [((*SHARED, *range(start, start + length)), ()) for start, length in ((30, 5), (90, 40), (200, 1))]


def read_by(bits: int, prompts: list[tuple[tuple[int, ...], tuple[()]]] = PROMPTS) -> tuple[torch.nn.Module, Prefilled]:
    model = tiny_model()
    return model, prefill(model, ExtraLayers(model, [], 0), {}, prompts, kv_bits=bits)


def test_the_prompt_itself_is_read_exactly() -> None:
    logits = [read_by(bits)[1].logits for bits in (0, 4)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("decoding", [Decoding(60), Decoding(30, beams=3)])
def test_short_answers_are_those_of_the_exact_cache(decoding: Decoding) -> None:
    """All that is packed here is rounded to 6 bits, which moves no choice of this model."""
    answers = []
    for bits in (0, 6):
        model, start = read_by(bits)
        answers.append([done.tokens for done in decode(model, start, decoding, {0})])
        assert isinstance(start.cache, PackedCache) == bool(bits)
    assert answers[0] == answers[1]
    assert all(answers[0])


def test_a_lone_answer_unpacks_no_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, start = read_by(4, PROMPTS[:1])

    def refuse(_: Held) -> torch.Tensor:
        raise AssertionError("unpacked")

    monkeypatch.setattr(Held, "read_keys", refuse)
    monkeypatch.setattr(Held, "read_values", refuse)
    (done,) = decode(model, start, Decoding(10), {0})
    assert len(done.tokens) == 10


LONG = [(tuple(range(1, 97)) * 6, ()), (tuple(range(50, 97)) * 3, ())]


@pytest.mark.parametrize("decoding", [Decoding(40), Decoding(12, beams=2)])
def test_r1_packs_its_window_and_its_nodes(decoding: Decoding) -> None:
    model = tiny_r1.model(sliding_window=100, max_position_embeddings=4096)
    answers = []
    for bits in (0, 6):
        start = prefill(model, ExtraLayers(model, [], 0), {}, LONG[:1], kv_bits=bits)
        answers.append([done.tokens for done in decode(model, start, decoding, {0})])
        assert start.cache.layers[0].positions.shape[1] < 500  # tokens of the prompt have been dropped
    assert answers[0] == answers[1]
    assert all(answers[0])


@pytest.mark.parametrize("bits", [0, 6])
def test_r1_reads_prompts_beside_one_another_as_alone(bits: int) -> None:
    """Past the window: whose tokens are dropped does not depend on the other prompt."""
    model = tiny_r1.model(sliding_window=100, max_position_embeddings=4096)
    answers = []
    for prompts in (LONG, LONG[:1], LONG[1:]):
        start = prefill(model, ExtraLayers(model, [], 0), {}, prompts, kv_bits=bits)
        answers.append([done.tokens for done in decode(model, start, Decoding(20), {0})])
    assert answers[0] == answers[1] + answers[2]


def test_other_bits_are_refused() -> None:
    with pytest.raises(UserError, match="3 bits"):
        read_by(3)
    with pytest.raises(ValidationError, match="kv_bits"):
        Generate(kv_bits=8)
    assert Generate().kv_bits == 0
