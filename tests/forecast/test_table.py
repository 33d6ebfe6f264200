"""The counts of the strategy table against what training builds, on models saved to disk."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from r1core.api import UserError
from r1core.forecast.shape import read_shape
from r1core.forecast.table import Table, table_of
from r1core.model.adapter import add_adapter
from r1core.recipe.strategy import ROLES, Strategy
from r1core.recipe.training import Adapter, Train
from r1core.testing import tiny_r1

LLAMA = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {
    "vocab_size": 64,
    "n_embd": 16,
    "n_layer": 4,
    "n_head": 2,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PLAIN = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "LlamaConfig": {**LLAMA, "tie_word_embeddings": True},
    "GPT2Config": GPT2,
    "GPTNeoXConfig": {**PLAIN, "intermediate_size": 24, "bos_token_id": 1, "eos_token_id": 2},  # query_key_value is one
    "Phi3Config": LLAMA,  # qkv_proj and gate_up_proj are one matrix each
    "Qwen3Config": {**LLAMA, "head_dim": 8},
}
FULL = {"mode": "full"}


def saved(name: str, folder: Path, **more: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = getattr(transformers, name)(**{**CONFIGS.get(name, LLAMA), **more})
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return model


def told(folder: Path, adapter: Adapter, strategy: Strategy) -> Table:
    shape = read_shape(folder)
    assert shape is not None
    return table_of(shape, adapter, strategy, Train())


def built(model: PreTrainedModel, adapter: Adapter, strategy: Strategy) -> Counter[str]:
    """Trained weights by role, of what training builds."""
    counts: Counter[str] = Counter()
    for one in add_adapter(model.requires_grad_(False), adapter, 0, strategy=strategy).trained():
        counts[one.role] += one.parameter.numel()
    return counts


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "gelu_lora"])
@pytest.mark.parametrize("name", CONFIGS)
def test_each_kind_of_adapter_on_each_shape(name: str, kind: str, tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    adapter = Adapter(kind=kind, rank=3, first_layer=1)  # type: ignore[arg-type]
    table = told(tmp_path, adapter, Strategy())
    assert table.base == table.shape.parameters == sum(p.numel() for p in model.parameters())
    assert {r.role: r.trained for r in table.roles if r.trained} == built(model, adapter, Strategy())
    assert table.lowest == 1


@pytest.mark.parametrize(
    "roles",
    [
        {"preset": "guide", "untie": True},
        {"norms": FULL},
        {"embeddings": FULL, "untie": True},
        {"output": {"mode": "lora"}, "untie": True},
        {"preset": "guide", "output": {"mode": "frozen"}, "deep_attention": FULL},
        {**dict.fromkeys(ROLES, FULL), "untie": True},
    ],
    ids=["guide", "norms", "embeddings", "head-lora", "deep-full", "everything"],
)
@pytest.mark.parametrize("name", ["LlamaConfig", "GPT2Config"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")  # PEFT's own, on GPT-2's two kinds of linear layers
def test_each_strategy(name: str, roles: dict[str, Any], tmp_path: Path) -> None:
    model = saved(name, tmp_path)
    adapter, strategy = Adapter(rank=3), Strategy.model_validate(roles)
    table = told(tmp_path, adapter, strategy)
    own = sum(p.numel() for p in model.parameters())
    assert table.untied == (64 * 16 if strategy.untie else 0)
    assert table.base == own + table.untied
    assert {r.role: r.trained for r in table.roles if r.trained} == built(model, adapter, strategy)
    assert table.share == pytest.approx(table.trained / table.base)


def test_a_head_of_its_own_is_no_copy(tmp_path: Path) -> None:
    model = saved("LlamaConfig", tmp_path, tie_word_embeddings=False)
    strategy = Strategy(preset="guide")
    table = told(tmp_path, Adapter(rank=3), strategy)
    assert (table.untied, table.base) == (0, sum(p.numel() for p in model.parameters()))
    assert {r.role: r.trained for r in table.roles if r.trained} == built(model, Adapter(rank=3), strategy)


def test_a_frozen_a_is_not_counted(tmp_path: Path) -> None:
    model = saved("LlamaConfig", tmp_path)
    adapter = Adapter(rank=5, freeze_a=True)
    assert told(tmp_path, adapter, Strategy()).trained == sum(built(model, adapter, Strategy()).values())


@pytest.mark.parametrize("targets", [["q_proj", "down_proj"], ["self_attn.o_proj"]])
def test_named_targets(targets: list[str], tmp_path: Path) -> None:
    model = saved("LlamaConfig", tmp_path)
    adapter = Adapter(rank=5, targets=targets)
    assert told(tmp_path, adapter, Strategy()).trained == sum(built(model, adapter, Strategy()).values())


@pytest.mark.parametrize(
    ("name", "more"), [("MixtralConfig", {"num_local_experts": 4}), ("OlmoeConfig", {"num_experts": 4})]
)
def test_experts_take_no_adapter_and_that_is_said(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    model = saved(name, tmp_path, **more)
    table = told(tmp_path, Adapter(rank=3), Strategy())
    assert table.base == sum(p.numel() for p in model.parameters())
    assert {r.role: r.trained for r in table.roles if r.trained} == built(model, Adapter(rank=3), Strategy())
    assert any("experts" in note for note in table.notes())
    with pytest.raises(UserError, match="experts are stacked"):
        built(model, Adapter(rank=3), Strategy(preset="guide"))


@pytest.mark.parametrize(
    ("name", "more"), [("MixtralConfig", {"num_local_experts": 4}), ("OlmoeConfig", {"num_experts": 4})]
)
def test_experts_that_are_named_take_one(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    model = saved(name, tmp_path, **more)
    adapter = Adapter(rank=3, targets=["q_proj", "experts"])
    table = told(tmp_path, adapter, Strategy())
    assert {r.role: r.trained for r in table.roles if r.trained} == built(model, adapter, Strategy())
    assert list(table.notes()) == []


def test_the_experts_of_an_r1_too(tmp_path: Path) -> None:
    made = tiny_r1.model()
    made.save_pretrained(tmp_path)
    adapter = Adapter(rank=3, targets=["experts"])
    table = told(tmp_path, adapter, Strategy())
    assert {r.role: r.trained for r in table.roles if r.trained} == built(made, adapter, Strategy())


def test_rates_and_decay_are_those_that_the_optimiser_gets(tmp_path: Path) -> None:
    saved("LlamaConfig", tmp_path)
    train = Train(learning_rate=3e-4, weight_decay=0.1)
    shape = read_shape(tmp_path)
    assert shape is not None
    plain = {r.role: r for r in table_of(shape, Adapter(), Strategy(), train).roles}
    assert (plain["deep_attention"].learning_rate, plain["deep_attention"].weight_decay) == (3e-4, 0.1)
    assert (plain["output"].mode, plain["output"].learning_rate) == ("frozen", None)
    strategy = Strategy.model_validate({"preset": "guide", "untie": True, "norms": FULL})
    guided = {r.role: r for r in table_of(shape, Adapter(), strategy, train).roles}
    assert (guided["output"].learning_rate, guided["output"].weight_decay) == (5e-5, 0.05)
    assert (guided["middle_feed_forward"].learning_rate, guided["middle_feed_forward"].weight_decay) == (2e-5, 0.02)
    assert (guided["norms"].learning_rate, guided["norms"].weight_decay) == (3e-4, 0.0)
