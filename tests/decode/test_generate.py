"""Generation against transformers' own `generate`, and label scores against separate plain passes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from r1core.api import LayerSpec, Reason, SlotFeatures, SpanKind, TokenMask
from r1core.data.tokens import Slot
from r1core.decode.generate import Completion, Decoding, LabelTree, decode
from r1core.decode.prefill import Prompt, prefill
from r1core.model.layers import ExtraLayers
from r1core.testing.tiny import VOCABULARY, tiny_model

KIND = SpanKind("t/k", encode=float, decode=float, width=1, feature=lambda v: (v,))
KINDS = {KIND.name: KIND}
EOS = 2
PROMPTS: list[Prompt] = [
    ((5, 6, 7, 8, 20, 21, 22), ()),
    ((5, 6, 7, 30), ()),
    ((5, 6, 7, 8, 20, 99, 98, 97, 96, 95), ()),
    ((5, 6, 7, 30), ()),
]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """The tiny model with its output sharpened, so that arg max never hangs on rounding."""
    model = tiny_model(seed=3).requires_grad_(False)
    model.model.embed_tokens.weight.mul_(8)
    return model


def run(
    model: nn.Module, prompts: list[Prompt], decoding: Decoding, states: list = (), eos: int = EOS
) -> list[Completion]:  # type: ignore[assignment]
    layers = ExtraLayers(model, [], seed=0)
    return decode(model, prefill(model, layers, KINDS, prompts), decoding, {eos}, states)


def transformers_greedy(model: nn.Module, ids: tuple[int, ...], length: int, eos: int) -> list[int]:
    inputs = torch.tensor([ids])
    out = model.generate(
        input_ids=inputs, attention_mask=torch.ones_like(inputs), do_sample=False, max_new_tokens=length,
        eos_token_id=eos, pad_token_id=0,
    )  # fmt: skip
    return out[0, len(ids) :].tolist()


def test_greedy_is_transformers_token_for_token(model: nn.Module) -> None:
    free = transformers_greedy(model, PROMPTS[0][0], 12, EOS)
    eos = free[5]  # a token that one row really meets, so that rows stop at different times
    done = run(model, PROMPTS, Decoding(12), eos=eos)
    for (ids, _), completion in zip(PROMPTS, done, strict=True):
        expected = transformers_greedy(model, ids, 12, eos)
        ended = expected[-1] == eos
        assert completion.tokens == (expected[:-1] if ended else expected)
        assert completion.finish == ("eos" if ended else "length")
    assert done[0].finish == "eos"
    assert len({len(c.tokens) for c in done}) > 1
    assert done[1] == done[3]
    assert run(model, PROMPTS[2:3], Decoding(12), eos=eos)[0] == done[2]


def test_sampling_follows_the_seed_and_the_models_probabilities(model: nn.Module) -> None:
    hot = Decoding(6, temperature=1.5, seed=1)
    assert run(model, PROMPTS, hot) == run(model, PROMPTS, hot)
    assert run(model, PROMPTS, hot) != run(model, PROMPTS, replace(hot, seed=2))
    assert run(model, PROMPTS, replace(hot, top_p=1e-9)) == run(model, PROMPTS, Decoding(6))
    logits = model(input_ids=torch.tensor([PROMPTS[0][0]])).logits[0, -1]
    expected = torch.softmax(logits / 20, -1).numpy()
    layers = ExtraLayers(model, [], seed=0)
    start = prefill(model, layers, KINDS, PROMPTS[:1])
    draws = [decode(model, start, Decoding(1, temperature=20, seed=s), {-1})[0].tokens[0] for s in range(800)]
    counts = np.bincount(draws, minlength=VOCABULARY)
    top = np.argsort(-expected)[:40]
    deviation = abs(counts[top].sum() - 800 * expected[top].sum())
    assert deviation < 5 * np.sqrt(800 * expected[top].sum() * (1 - expected[top].sum()))


def test_top_p_keeps_the_smallest_set_that_reaches_it(model: nn.Module) -> None:
    logits = model(input_ids=torch.tensor([PROMPTS[0][0]])).logits[0, -1]
    probabilities, order = torch.softmax(logits / 5, -1).sort(descending=True)
    kept = set(order[: int((probabilities.cumsum(0) < 0.6).sum()) + 1].tolist())
    start = prefill(model, ExtraLayers(model, [], seed=0), KINDS, PROMPTS[:1])
    draws = {decode(model, start, Decoding(1, 5.0, 0.6, seed), {-1})[0].tokens[0] for seed in range(400)}
    assert draws <= kept
    assert len(draws) > 1 or len(kept) == 1


@dataclass(frozen=True)
class Ban:
    """Refuses some tokens, and from `depth` on every token."""

    banned: tuple[int, ...]
    depth: int = 10**6
    packed: bool = False
    place: int = 0

    @property
    def key(self) -> int:
        return self.place

    def mask(self) -> TokenMask:
        ids = np.arange(VOCABULARY, dtype=np.int32) if self.place >= self.depth else np.array(self.banned, np.int32)
        if not self.packed:
            return TokenMask(banned=ids)
        return TokenMask(allowed=np.packbits(~np.isin(np.arange(VOCABULARY), ids), bitorder="little"))

    def advance(self, token_id: int) -> Ban:
        assert token_id not in self.banned
        return replace(self, place=self.place + 1)

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        return (Reason("rule-7", "a handbook", str(token_id)),)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_a_banned_token_never_appears(model: nn.Module, packed: bool, temperature: float) -> None:
    free = run(model, PROMPTS, Decoding(8))
    banned = tuple(sorted({free[0].tokens[0], free[0].tokens[2], free[1].tokens[1]}))
    done = run(model, PROMPTS, Decoding(8, temperature), [Ban(banned, packed=packed), None, Ban(banned), None])
    assert not set(done[0].tokens + done[2].tokens) & set(banned)
    (first, *_) = done[0].interventions
    assert (first.position, first.refused, first.taken) == (0, free[0].tokens[0], done[0].tokens[0])
    assert first.reasons[0].rule == "rule-7"
    if temperature == 0.0:
        assert done[1] == free[1]  # the row beside it is as free as before
        whole = torch.tensor([PROMPTS[0][0] + tuple(done[0].tokens)])
        logits = model(input_ids=whole).logits[0, len(PROMPTS[0][0]) - 1 : -1].clone()
        logits[:, list(banned)] = -torch.inf
        assert logits.argmax(-1).tolist() == done[0].tokens


@pytest.mark.parametrize("bare", [True, False])
def test_a_dead_end_stops_its_row_and_names_the_rule(model: nn.Module, bare: bool) -> None:
    from r1core.decode.constraints import intersect

    ban = Ban((), depth=2)
    state = ban if bare else intersect([("acme/rules", ban)], VOCABULARY)
    done = run(model, PROMPTS[:2], Decoding(6), [state, None])
    assert (done[0].finish, len(done[0].tokens)) == ("dead_end", 2)
    assert "rule-7" in done[0].failure
    assert done[0].interventions[-1].taken is None
    assert done[0].tokens == run(model, PROMPTS[:1], Decoding(2))[0].tokens
    assert done[1] == run(model, PROMPTS[:2], Decoding(6))[1]


class Marks(nn.Module):
    """Adds something at each span, and something else everywhere."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector, self.bias = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width))

    def forward(self, hidden: torch.Tensor, features: Mapping[str, SlotFeatures]) -> torch.Tensor:
        slots = features[KIND.name]
        place = torch.arange(hidden.shape[1]).view(1, -1, 1)
        covered = (place >= slots.start[:, None]) & (place < slots.end[:, None])
        return (covered * slots.values[..., 0][:, None]).sum(-1, keepdim=True) * self.vector + self.bias


@torch.no_grad()
def test_with_a_layer_on_decoding_equals_full_recomputation() -> None:
    model = tiny_model(seed=3).requires_grad_(False)
    model.model.embed_tokens.weight.mul_(8)
    layers = ExtraLayers(model, [LayerSpec("t/marks", "block:0", Marks, (KIND.name,))], seed=0)
    prompts: list[Prompt] = [
        ((5, 6, 7, 8, 20, 21), (Slot(KIND.name, 1, 3, (2.0,)),)),
        ((5, 6, 7, 8, 30), (Slot(KIND.name, 4, 5, (-1.0,)),)),
        ((5, 6, 7, 8, 30, 31, 32), ()),
    ]
    plain = decode(model, prefill(model, layers, KINDS, prompts), Decoding(8), {EOS})
    layers.layers[0].gate.fill_(4.0)  # type: ignore[union-attr, operator]
    done = decode(model, prefill(model, layers, KINDS, prompts), Decoding(8), {EOS})
    assert [c.tokens for c in done] != [c.tokens for c in plain]
    for (ids, slots), completion in zip(prompts, done, strict=True):
        tokens: list[int] = []
        features = {
            KIND.name: SlotFeatures(
                start=torch.tensor([[s.start for s in slots]], dtype=torch.int64),
                end=torch.tensor([[s.end for s in slots]], dtype=torch.int64),
                values=torch.tensor([s.values for s in slots]).reshape(1, len(slots), 1),
                mask=torch.ones(1, len(slots), dtype=torch.bool),
            )
        }
        while len(tokens) < 8:
            with layers.using(features):
                token = int(model(input_ids=torch.tensor([[*ids, *tokens]])).logits[0, -1].argmax())
            if token == EOS:
                break
            tokens.append(token)
        assert completion.tokens == tokens


TREES = {
    "shared first tokens": [(10, 11, EOS), (10, 12, EOS), (13, EOS)],
    "one a prefix of another": [(10, EOS), (10, 11, EOS), (10, 11, 12, EOS)],
    "a forced tail": [(10, 11, 12, 13, EOS), (14, 15, EOS)],
    "all begin alike": [(10, 11, EOS), (10, 12, 13, EOS), (10, 12, 14, EOS)],
    "one label": [(10, 11, EOS)],
}


@pytest.mark.parametrize("paths", TREES.values(), ids=TREES)
@torch.no_grad()
def test_label_scores_are_the_product_of_renormalised_next_token_probabilities(
    model: nn.Module, paths: list[tuple[int, ...]]
) -> None:
    tree = LabelTree([f"label {i}" for i in range(len(paths))], paths)
    start = prefill(model, ExtraLayers(model, [], seed=0), KINDS, PROMPTS, tree.branches)
    scores = tree.scores(start.logits, start.extra)
    expected = np.zeros((len(PROMPTS), len(paths)))
    for row, (ids, _) in enumerate(PROMPTS):
        for column, path in enumerate(paths):
            product = 1.0
            for depth, token in enumerate(path):
                logits = model(input_ids=torch.tensor([[*ids, *path[:depth]]])).logits[0, -1].double()
                open_ids = {other[depth] for other in paths if other[:depth] == path[:depth]}
                exponents = (logits - logits[list(open_ids)].max()).exp()
                product *= float(exponents[token] / sum(exponents[t] for t in open_ids))
            expected[row, column] = np.log(product)
    assert np.allclose(scores, expected, atol=1e-3)
    assert np.allclose(np.exp(scores).sum(1), 1.0)


def test_scoring_leaves_the_generation_behind_it_as_it_was(model: nn.Module) -> None:
    paths = TREES["all begin alike"]
    layers = ExtraLayers(model, [], seed=0)
    tree = LabelTree(["a", "b", "c"], paths)
    scored = decode(model, prefill(model, layers, KINDS, PROMPTS, tree.branches), Decoding(8), {EOS})
    assert scored == run(model, PROMPTS, Decoding(8))
