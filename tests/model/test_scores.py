"""Chunked cross-entropy against torch's own on whole logits; heads that are more than a product are found out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from r1core.data.packing import pack_rows
from r1core.data.tokens import Encoded
from r1core.model import scores
from r1core.model.scores import HiddenScores, Reader, chunks, linear_head
from r1core.testing.tiny import tiny_model

ROWS = [Encoded("a", (5, 6, 9), (7, 2), ()), Encoded("b", (5, 8), (2,), ())]
SMALL = {
    "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def small(kind: str, **config: object) -> PreTrainedModel:
    torch.manual_seed(0)
    made = AutoConfig.for_model(kind, **{**SMALL, **config})
    return AutoModelForCausalLM.from_config(made, attn_implementation="eager").eval()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True], ids=["frozen head", "trained head"])
def test_chunks_change_nothing(smoothing: float, bias: bool, trained: bool) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(16, 50, bias=bias).requires_grad_(trained)
    hidden, targets = torch.randn(8, 16, requires_grad=True), torch.randint(50, (8,))
    weights = torch.rand(8)
    three = 4 * 50 * 3  # positions at a time
    ours = HiddenScores(hidden, head, scores._part, three).cross_entropy(targets, label_smoothing=smoothing)
    theirs = functional.cross_entropy(head(hidden), targets, reduction="none", label_smoothing=smoothing)
    assert torch.allclose(ours, theirs, atol=1e-6)
    wanted = [hidden, *(head.parameters() if trained else ())]
    for one, other in zip(
        torch.autograd.grad((ours * weights).sum(), wanted),
        torch.autograd.grad((theirs * weights).sum(), wanted),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("positions", [1, 2, 3, 8])
def test_the_gradient_over_a_large_vocabulary_is_that_of_double_precision(positions: int) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(64, 49_152, bias=False).requires_grad_(False)
    hidden, targets = torch.randn(positions, 64, requires_grad=True), torch.randint(49_152, (positions,))
    HiddenScores(hidden, head, scores._part).cross_entropy(targets).sum().backward()
    exact = hidden.detach().double().requires_grad_()
    functional.cross_entropy(exact @ head.weight.double().t(), targets, reduction="sum").backward()
    assert hidden.grad is not None
    assert exact.grad is not None
    assert float((hidden.grad - exact.grad).norm() / exact.grad.norm()) < 6e-7


def test_a_chunk_holds_what_it_may() -> None:
    assert [(c.start, c.stop) for c in chunks(7, 100, 1000)] == [(0, 2), (2, 4), (4, 6), (6, 7)]
    assert [(c.start, c.stop) for c in chunks(2, 10**6, 1000)] == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("kind", "config", "linear"),
    [
        ("llama", {}, True),
        ("qwen3", {}, True),
        ("gemma2", {"final_logit_softcapping": 30.0}, False),
        ("granite", {"logits_scaling": 8.0}, False),
        ("cohere", {"logit_scale": 0.25}, False),
    ],
)
def test_a_head_that_does_more_is_found_out_and_read_whole(kind: str, config: dict[str, object], linear: bool) -> None:
    model, batch = small(kind, **config), pack_rows(ROWS, {}, torch.float32)
    assert linear_head(model, batch) is linear
    ours = Reader(model, linear=linear)(batch)
    whole = model(
        input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=batch.mask, use_cache=False
    ).logits[0, batch.where]
    assert torch.allclose(ours.logits(), whole, atol=1e-5)
    expected = functional.cross_entropy(whole, batch.targets, reduction="none")
    assert torch.allclose(ours.cross_entropy(batch.targets), expected, atol=1e-5)


def test_the_tiny_model_is_read_in_chunks() -> None:
    assert linear_head(tiny_model(), pack_rows(ROWS, {}, torch.float32))
