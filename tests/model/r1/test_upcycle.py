"""A dense model becomes an R1 that says the same, and each step that changes what it says tells by how much."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen2Config

from r1core.api import UserError
from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.change import Change, changed, perplexity
from r1core.model.r1.upcycle import configuration, upcycle, upcycled
from r1core.model.upcycled import R1Source
from r1core.model.upcycling import Upcycling
from r1core.testing.tiny_r1 import tokens

SMALL = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 256,
         "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}  # fmt: skip
FEW = Upcycling(experts=16, groups=4, width=8, adaptation_rank=2)


def dense(dtype: torch.dtype = torch.float32, **changed_: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SMALL, **changed_})).to(dtype=dtype).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_the_dense_models_bit_for_bit(dtype: torch.dtype, tied: bool) -> None:
    source = dense(dtype, tie_word_embeddings=tied)
    ids = tokens(2, 60)
    mask = torch.ones_like(ids)
    mask[0, :9] = 0
    made = upcycled(source, FEW)
    assert torch.equal(made(ids).logits, source(ids).logits)
    assert torch.equal(made(ids, attention_mask=mask).logits, source(ids, attention_mask=mask).logits)
    assert made.config.rope_theta == 10_000


def test_a_model_that_was_loaded_in_bf16_says_the_same_upcycled_and_read_again(tmp_path: Path) -> None:
    dense().save_pretrained(tmp_path / "dense")
    source, ids = LlamaForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.bfloat16), tokens(2, 60)
    made = upcycled(source, FEW)
    made.save_pretrained(tmp_path / "moe")
    read = R1ForCausalLM.from_pretrained(tmp_path / "moe", dtype=torch.bfloat16)
    for one in (made, read):
        assert torch.equal(one(ids).logits, source(ids).logits)


def test_copies_of_the_dense_part_say_the_same_to_rounding() -> None:
    source, ids = dense(), tokens(2, 60)
    made = upcycled(source, Upcycling(experts=8, groups=4, copies=True, adaptation_rank=2))
    assert made.feed_forwards()[0].shared is None
    with torch.no_grad():
        assert float((made(ids).logits - source(ids).logits).abs().max()) <= 1e-6


def test_training_moves_the_new_experts_away_from_zero() -> None:
    made, ids = upcycled(dense(), FEW).train(), tokens(4, 40)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = made(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(float(block.experts.down_proj.detach().abs().max()) > 0 for block in made.feed_forwards())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Qwen2Config(), "qwen2"),
        (LlamaConfig(**SMALL, attention_bias=True), "with biases"),
        (LlamaConfig(**SMALL, hidden_act="gelu"), "without SwiGLU"),
        (LlamaConfig(**{**SMALL, "max_position_embeddings": 1_000_000}), "204800 positions"),
    ],
)
def test_what_cannot_become_an_r1_is_refused(source: LlamaConfig, said: str) -> None:
    with pytest.raises(UserError, match=said):
        configuration(source, FEW)


def test_sizes_that_do_not_fit_are_one_line() -> None:
    with pytest.raises(UserError, match="10 do not divide into expert_groups = 4"):
        configuration(dense().config, Upcycling(experts=10, groups=4))


class Dense:
    """A model source with one small dense model."""

    def __init__(self, folder) -> None:
        self.folder = folder

    def names(self):
        return {"small": "small"}

    def fingerprint(self, name: str) -> str:
        return "1"

    def materialise(self, name: str):
        return self.folder


@pytest.fixture
def folder(tmp_path, tiny_tokenizer):
    """A dense model directory with a tokenizer."""
    size = len(tiny_tokenizer)
    dense(vocab_size=size).save_pretrained(tmp_path / "dense")
    tiny_tokenizer.save_pretrained(tmp_path / "dense")
    return tmp_path / "dense"


@pytest.fixture
def tiny_tokenizer():
    from r1core.testing.tiny import tiny_tokenizer

    return tiny_tokenizer()


def test_the_base_model_r1_is_made_once_and_kept(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("R1CORE_CACHE", str(tmp_path / "cache"))
    source = R1Source([Dense(folder)])
    assert list(source.names()) == ["r1"]
    made = source.materialise("r1")
    first = (made / "config.json").stat().st_mtime_ns
    assert source.materialise("r1") == made
    assert (made / "config.json").stat().st_mtime_ns == first
    read = R1ForCausalLM.from_pretrained(made)
    assert read.config.num_experts == 128
    assert (
        AutoTokenizer.from_pretrained(made)("a")["input_ids"] == AutoTokenizer.from_pretrained(folder)("a")["input_ids"]
    )
    with pytest.raises(UserError, match="no model 'r2'"):
        source.materialise("r2")
    assert R1Source([]).names() == {}


def test_a_step_tells_its_change_in_perplexity(folder, tmp_path) -> None:
    upcycle(folder, tmp_path / "r1", FEW)
    text = "the heart of the patient is well " * 20
    before, after = changed(tmp_path / "r1", tmp_path / "new", Change(rope_base=50_000, window=16, every=4), text, 128)
    source, new = (R1ForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("r1", "new"))
    assert (new.config.rope_theta, new.config.sliding_window, new.config.global_every) == (50_000, 16, 4)
    assert (source.config.rope_theta, source.config.sliding_window) == (10_000, None)
    ids = torch.tensor(AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"])
    for model, said in ((source, before), (new, after)):
        total, number = 0.0, 0
        for start in range(0, len(ids), 128):
            piece = ids[start : start + 128]
            if len(piece) > 1:
                total += float(model(piece[None], labels=piece[None]).loss.detach()) * (len(piece) - 1)
                number += len(piece) - 1
        assert said == pytest.approx(math.exp(total / number), rel=1e-4)
    assert before != after
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), new.state_dict().values(), strict=True))
    with pytest.raises(UserError, match="sliding_window = -1"):
        changed(tmp_path / "r1", tmp_path / "bad", Change(window=-1), text)
    with pytest.raises(UserError, match="fewer than two tokens"):
        changed(tmp_path / "r1", tmp_path / "bad", Change(window=8), "")
    assert perplexity(new, ids[:2]) > 1
