"""Beam search against transformers' own, and under constraints against an exhaustive search."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from r1core.api import Example, LayerSpec, Message, Reason, SlotFeatures
from r1core.decode.choices import ChoiceAutomaton
from r1core.decode.constraints import Request, allowed_bool, intersect
from r1core.decode.ending import Stops
from r1core.decode.generate import decode
from r1core.decode.prefill import prefill
from r1core.decode.values import Completion, Decoding
from r1core.decode.vocabulary import Vocabulary
from r1core.model.layers import ExtraLayers
from r1core.testing.tiny import VOCABULARY, tiny_model, tiny_tokenizer

from .test_generate import KIND, KINDS, PROMPTS, Ban, Marks

EOS = 2
BYTES = Vocabulary.from_tokenizer(tiny_tokenizer())
REQUEST = Request(Example("one", (Message("user", "x"),), "task"), BYTES)


@pytest.fixture(scope="module", params=[3, 11])
def model(request: pytest.FixtureRequest) -> nn.Module:
    model = tiny_model(seed=request.param).requires_grad_(False)
    model.model.embed_tokens.weight.mul_(3)
    return model


def beams(
    model: nn.Module, decoding: Decoding, states: Any = (), eos: int = EOS, stops: Any = None
) -> list[Completion]:
    layers = ExtraLayers(model, [], seed=0)
    return decode(model, prefill(model, layers, KINDS, PROMPTS), decoding, {eos}, states, stops)


def transformers_beams(
    model: nn.Module,
    ids: tuple[int, ...],
    decoding: Decoding,
    eos: int,
    allowed: Callable[[list[int]], list[int]] | None,
) -> list[int]:
    inputs = torch.tensor([ids])
    out = model.generate(
        input_ids=inputs, attention_mask=torch.ones_like(inputs), do_sample=False, num_beams=decoding.beams,
        max_new_tokens=decoding.max_new_tokens, length_penalty=decoding.length_penalty,
        eos_token_id=eos, pad_token_id=0,
        prefix_allowed_tokens_fn=None if allowed is None else lambda _, seen: allowed(seen[len(ids) :].tolist()),
    )  # fmt: skip
    tokens: list[int] = out[0, len(ids) :].tolist()
    return tokens[: tokens.index(eos)] if eos in tokens else tokens


@pytest.mark.parametrize("width", [2, 3, 6])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -0.5, 2.0])
def test_without_constraints_it_is_transformers_own(model: nn.Module, width: int, length_penalty: float) -> None:
    likely = beams(model, Decoding(6))[0].tokens
    for eos in (EOS, likely[1], likely[4]):
        decoding = Decoding(9, beams=width, length_penalty=length_penalty)
        done = beams(model, decoding, eos=eos)
        expected = [transformers_beams(model, ids, decoding, eos, None) for ids, _ in PROMPTS]
        assert [c.tokens for c in done] == expected


def test_with_bans_it_is_transformers_own_with_allowed_tokens(model: nn.Module) -> None:
    free = beams(model, Decoding(6))
    banned = tuple(sorted({free[0].tokens[0], free[0].tokens[2], free[1].tokens[1]} - {EOS}))
    decoding = Decoding(8, beams=4)
    done = beams(model, decoding, [Ban(banned), None, Ban(banned, packed=True), Ban((5,))])
    for row, ban in ((0, banned), (1, ()), (2, banned), (3, (5,))):
        allowed = [t for t in range(VOCABULARY) if t not in ban]
        assert done[row].tokens == transformers_beams(model, PROMPTS[row][0], decoding, EOS, lambda _, a=allowed: a)
    assert done[0].interventions[0].reasons == (Reason("rule-7", "a handbook", str(done[0].interventions[0].refused)),)
    for one in done[0].interventions:
        assert one.taken == done[0].tokens[one.position]


def best_by_exhaustion(
    model: nn.Module, ids: tuple[int, ...], labels: tuple[str, ...], eos: int, penalty: float
) -> list[int]:
    """Every token path that spells a label, scored by plain passes over the whole text."""
    scored = []
    for label in labels:
        for path in paths(label.encode()):
            logits = model(input_ids=torch.tensor([[*ids, *path, eos]])).logits[0, len(ids) - 1 : -1]
            logprobs = torch.log_softmax(logits.float(), -1)
            total = sum(float(logprobs[i, t]) for i, t in enumerate([*path, eos]))
            scored.append((total / (len(path) + 1) ** penalty, path))
    return max(scored)[1]


def paths(data: bytes) -> list[list[int]]:
    if not data:
        return [[]]
    firsts = [
        (i, t) for i, t in enumerate(BYTES.token_bytes) if t and data.startswith(t) and i not in BYTES.special_ids
    ]
    return [[i, *rest] for i, token in firsts for rest in paths(data[len(token) :])]


@pytest.mark.parametrize("penalty", [1.0, 0.0])
def test_under_constraints_wide_beams_find_what_exhaustion_finds(model: nn.Module, penalty: float) -> None:
    (eos,) = BYTES.eos_ids
    of_row = [("the heart", "then", "zzz"), ("chest", "cat", "loss"), ("the", "the heart"), ("pain",)]
    states = [intersect([("choices", REQUEST.lift(ChoiceAutomaton(labels)))], BYTES.size) for labels in of_row]
    width = 2 * max(sum(len(paths(label.encode())) for label in labels) for labels in of_row)
    done = beams(model, Decoding(12, beams=width, length_penalty=penalty), states, eos)
    for (ids, _), labels, completion in zip(PROMPTS, of_row, done, strict=True):
        assert completion.tokens == best_by_exhaustion(model, ids, labels, eos, penalty)
        assert completion.finish == "eos"


def test_narrow_beams_stay_inside_the_constraints(model: nn.Module) -> None:
    (eos,) = BYTES.eos_ids
    labels = ("chest pain", "heart", "loss")
    states = [intersect([("choices", REQUEST.lift(ChoiceAutomaton(labels)))], BYTES.size) for _ in PROMPTS]
    for completion in beams(model, Decoding(20, beams=3), states, eos):
        assert b"".join(BYTES.token_bytes[t] for t in completion.tokens).decode() in labels


def test_a_dead_end_is_told_only_where_no_beam_survives(model: nn.Module) -> None:
    done = beams(model, Decoding(6, beams=3), [Ban((), depth=2), None, Ban((), depth=0), None])
    assert [c.finish for c in done] == ["dead_end", done[1].finish, "dead_end", done[3].finish]
    assert "rule-7" in done[0].failure
    assert len(done[0].tokens) == 2
    assert done[1].tokens == beams(model, Decoding(6, beams=3))[1].tokens


def test_a_stop_string_ends_a_beam(model: nn.Module) -> None:
    free = beams(model, Decoding(8, beams=3))[0]
    text = b"".join(BYTES.token_bytes[t] for t in free.tokens)
    stop = next(s for s in (text[i : i + 2].decode("utf-8", "ignore") for i in range(2, len(text))) if len(s) > 1)
    done = beams(model, Decoding(8, beams=3, stop=(stop,)), stops=Stops((stop,), BYTES, at_start=True))
    for completion in done:
        said = b"".join(BYTES.token_bytes[t] for t in completion.tokens) + completion.tail
        assert stop.encode() not in said


def test_sampled_beams_are_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        Decoding(4, temperature=1.0, beams=2)


@torch.no_grad()
def test_layers_see_each_beam_as_a_text_of_its_own() -> None:
    model = tiny_model(seed=3).requires_grad_(False)
    model.model.embed_tokens.weight.mul_(3)
    layers = ExtraLayers(model, [LayerSpec("t/marks", "block:0", Marks, (KIND.name,))], seed=0)
    layers.layers[0].gate.fill_(4.0)  # type: ignore[union-attr, operator]
    done = decode(model, prefill(model, layers, KINDS, PROMPTS[:1]), Decoding(4, beams=3), {EOS})[0]
    none: Mapping[str, SlotFeatures] = prefill(model, layers, KINDS, PROMPTS[:1]).no_spans

    def logprobs(tokens: list[int]) -> torch.Tensor:
        with layers.using(none):
            return torch.log_softmax(model(input_ids=torch.tensor([[*PROMPTS[0][0], *tokens]])).logits[0, -1], -1)

    lines: list[tuple[float, list[int]]] = [(0.0, [])]
    ended: list[tuple[float, list[int]]] = []
    for length in range(1, 5):
        grown = []
        for score, tokens in lines:
            best = logprobs(tokens).topk(8)
            pairs = zip(best.values, best.indices, strict=True)
            grown += [(score + float(value), [*tokens, int(index)]) for value, index in pairs]
        grown.sort(reverse=True)
        ended += [(s / length, t[:-1]) for s, t in grown[:3] if t[-1] == EOS]
        lines = [(s, t) for s, t in grown if t[-1] != EOS][:3]
    best_text = max([*ended, *((s / 4, t) for s, t in lines)])[1]
    assert done.tokens == best_text


def test_rows_in_one_batch_do_not_touch_each_other(model: nn.Module) -> None:
    together = beams(model, Decoding(7, beams=3))
    layers = ExtraLayers(model, [], seed=0)
    for row, prompt in enumerate(PROMPTS):
        (alone,) = decode(model, prefill(model, layers, KINDS, [prompt]), Decoding(7, beams=3), {EOS})
        assert alone.tokens == together[row].tokens


def test_masks_of_states_that_forked_stay_as_they_were(model: nn.Module) -> None:
    state = intersect([("choices", REQUEST.lift(ChoiceAutomaton(("heart", "head", "loss"))))], BYTES.size)
    h, e = (BYTES.token_bytes.index(c) for c in (b"h", b"e"))
    before = allowed_bool(state.mask(), BYTES.size).copy()
    for tokens in itertools.permutations([h, e], 1):
        if before[tokens[0]]:
            state.advance(tokens[0]).mask()
    assert np.array_equal(allowed_bool(state.mask(), BYTES.size), before)
