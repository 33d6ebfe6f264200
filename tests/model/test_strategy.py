"""The layer-wise table: what it trains, that it is saved and loaded whole, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from r1core.api import UserError
from r1core.model.adapted import Adapted
from r1core.model.adapter import add_adapter, load_adapter
from r1core.model.placement import tied, untie
from r1core.model.roles import role_of
from r1core.model.strategy import refusals, ties
from r1core.recipe.schema import Recipe
from r1core.recipe.strategy import ROLES, Strategy
from r1core.recipe.training import Adapter

IDS = torch.tensor([[5, 6, 7, 8]])
SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def llama(*, tie: bool = False, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tie)).eval().to(dtype)


def gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=64, n_embd=16, n_layer=3, n_head=2, bos_token_id=1, eos_token_id=2, attn_pdrop=0.0, embd_pdrop=0.0,
        resid_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def table(**roles: Any) -> Strategy:
    return Strategy.model_validate(roles)


FULL = {"mode": "full"}
EVERYTHING = dict.fromkeys(ROLES, FULL)


def adapt(model: PreTrainedModel, strategy: Strategy, **adapter: Any) -> Adapted:
    return add_adapter(model.requires_grad_(False), Adapter(rank=4, **adapter), seed=0, strategy=strategy)


def roles_trained(adapted: Adapted) -> dict[str, str]:
    """Role to the way in which it is trained, from the names of what requires a gradient."""
    ways: dict[str, set[str]] = {}
    for one in adapted.trained():
        ways.setdefault(one.role, set()).add("full" if "modules_to_save" in one.name else "lora")
    assert all(len(way) == 1 for way in ways.values())
    return {role: way.pop() for role, way in ways.items()}


@torch.no_grad()
def shaken(adapted: Adapted) -> Adapted:
    generator = torch.Generator().manual_seed(1)
    for one in adapted.trained():
        one.parameter.add_(torch.randn(one.parameter.shape, generator=generator) / 10)
    adapted.model.eval()
    return adapted


@pytest.mark.parametrize("make", [llama, gpt2])
def test_an_empty_table_is_lora_as_it_was(make: Any) -> None:
    plain, empty = add_adapter(make(), Adapter(rank=4, first_layer=1), seed=0), adapt(make(), Strategy(), first_layer=1)
    assert [one.name for one in plain.trained()] == [one.name for one in empty.trained()]
    assert set(roles_trained(empty).values()) == {"lora"}
    stated = plain.model.peft_config["default"].to_dict()  # type: ignore[union-attr]
    assert stated["layers_to_transform"] == [1, 2]
    assert stated["modules_to_save"] is None
    spelled = {role: {"mode": "lora"} for role in ROLES if "attention" in role or "feed" in role}
    both = [adapt(make(), table(**roles)) for roles in ({}, spelled)]
    assert len({tuple(one.name for one in adapted.trained()) for adapted in both}) == 1
    one, two = (adapted.tensors() for adapted in both)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_guide_trains_what_it_says() -> None:
    model = llama()
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    adapted = adapt(model, Strategy(preset="guide"))
    assert roles_trained(adapted) == {role: "lora" for role in ROLES if "_" in role} | {"output": "full"}
    full = sum(one.parameter.numel() for one in adapted.trained() if one.role == "output")
    assert full == sum(size for name, size in sizes.items() if role_of(name, 3) == "output")


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ({"norms": FULL}, {"norms": "full", "deep_attention": "lora"}),
        ({"embeddings": FULL, "untie": True}, {"embeddings": "full", "deep_attention": "lora"}),
        ({**EVERYTHING, "untie": True}, dict.fromkeys(ROLES, "full")),
        ({"output": {"mode": "lora"}, "untie": True}, {"output": "lora", "deep_attention": "lora"}),
        ({"preset": "guide", "output": {"mode": "frozen"}, "deep_attention": FULL}, {"deep_attention": "full"}),
    ],
)
@pytest.mark.parametrize("make", [llama, gpt2, lambda: llama(tie=True), lambda: llama(dtype=torch.bfloat16)])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to")  # PEFT's own, on GPT-2's two kinds of linear layers
def test_trained_saved_and_loaded_elsewhere(make: Any, roles: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    base = make()
    answer = base(IDS).logits
    adapted = adapt(make(), table(**roles))
    ways = roles_trained(adapted)
    assert {role: ways.get(role) for role in expected} == expected
    assert ("output" in ways) == ("output" in expected)
    assert {one.parameter.dtype for one in adapted.trained()} == {torch.float32}
    assert torch.allclose(adapted.model(IDS).logits, answer, atol=1e-6 if base.dtype == torch.float32 else 0.02)
    shaken(adapted)
    logits = adapted.model(IDS).logits
    assert logits.dtype == base.dtype
    assert not torch.allclose(logits, answer, atol=0.02)
    with adapted.off():
        assert torch.equal(adapted.model(IDS).logits, answer)
    logits.float().square().mean().backward()
    assert all(one.parameter.grad is not None for one in adapted.trained())
    adapted.save(tmp_path)
    again = load_adapter(make(), tmp_path)
    again.model.eval()
    close = {"rtol": 1e-5, "atol": 1e-6} if base.dtype == torch.float32 else {"rtol": 0.05, "atol": 0.05}
    assert torch.allclose(again.model(IDS).logits, logits, **close)
    for name, value in adapted.tensors().items():
        assert torch.equal(again.tensors()[name], value), name
    with again.off():
        assert torch.equal(again.model(IDS).logits, answer)
    if base.dtype == torch.float32:  # elsewhere PEFT reads full modules in the base's dtype
        plain = make()
        if tied(plain):
            untie(plain)
        assert torch.allclose(PeftModel.from_pretrained(plain, str(tmp_path)).eval()(IDS).logits, logits, **close)


def test_first_layer_holds_for_full_training_too() -> None:
    with pytest.raises(
        UserError, match=r"strategy\.shallow_attention: no layer of this model, from adapter\.first_layer"
    ):
        adapt(llama(), table(**EVERYTHING), first_layer=1)
    some = {role: full for role, full in EVERYTHING.items() if "shallow" not in role}
    adapted = adapt(llama(), table(**some), first_layer=1)
    names = [one.name for one in adapted.trained() if ".layers." in one.name]
    assert names
    assert not [name for name in names if ".layers.0." in name]
    assert {"embeddings", "output"} <= set(roles_trained(adapted))


def test_experts_in_full_and_never_lora_without_a_word() -> None:
    torch.manual_seed(0)
    base = MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4)).eval()
    answer = base(IDS).logits
    for preset in ({"preset": "guide"}, {"deep_feed_forward": {"mode": "lora"}}):
        with pytest.raises(UserError, match=r"_feed_forward\.mode = \"lora\": no linear layer \(experts are stacked\)"):
            adapt(base, table(**preset))
    adapted = adapt(base, table(deep_feed_forward=FULL))
    assert torch.allclose(adapted.model(IDS).logits, answer, atol=1e-6)
    trained = {one.name for one in adapted.trained() if one.role == "deep_feed_forward"}
    assert {name.rpartition(".")[2] for name in trained} == {"weight", "gate_up_proj", "down_proj"}
    adapted.model(IDS).logits.square().mean().backward()
    assert all(one.parameter.grad is not None for one in adapted.trained())


def test_untying_gives_the_head_weights_of_its_own(tmp_path: Path) -> None:
    model = llama(tie=True)
    answer = model(IDS).logits
    assert tied(model)
    untie(model)
    assert not tied(model)
    assert torch.equal(model(IDS).logits, answer)
    assert model.config.tie_word_embeddings is False
    with torch.no_grad():
        model.get_output_embeddings().weight += 1
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not tied(again)
    assert torch.equal(again(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize(
    "roles", [{"output": FULL}, {"preset": "guide"}, {"embeddings": FULL}, {"output": {"mode": "lora"}}]
)
def test_a_tied_head_is_trained_only_when_asked_to_be_untied(roles: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"strategy\.(output|embeddings)\.mode.*tied") as refused:
        adapt(llama(tie=True), table(**roles))
    assert "strategy.untie = true" in refused.value.fix


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({"norms": {"mode": "lora"}}, r"norms have no linear layer"),
        ({"embeddings": {"mode": "lora"}}, r"embeddings have no linear layer"),
        ({"norms": {"learning_rate": 1e-4}}, "norms is frozen"),
        ({"norms": {"mode": "half"}}, "'frozen', 'lora' or 'full'"),
        ({"norms": {"mode": "full", "learning_rate": 0.0}}, "greater than 0"),
        ({"preset": "other"}, "guide"),
        ({"shallow": {}}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused_by_the_table(roles: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        table(**roles)


def test_what_the_model_does_not_have_is_refused() -> None:
    two = LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_hidden_layers": 2}))
    with pytest.raises(UserError, match="deep_attention"):
        adapt(two, table(deep_attention=FULL))
    with pytest.raises(UserError, match="deep_attention"):
        adapt(two, table(deep_attention={"mode": "lora"}))
    assert "deep_attention" not in roles_trained(adapt(two, Strategy(preset="guide")))
    with pytest.raises(UserError, match="nothing would be trained"):
        adapt(two, table(**{role: {"mode": "frozen"} for role in ROLES}))


def recipe(**tables: Any) -> Recipe:
    return Recipe.model_validate({"run": {"name": "r"}, "model": {"hub": "a/b"}, "data": {"source": "s"}, **tables})


@pytest.mark.parametrize(
    ("tables", "private", "tie", "keys"),
    [
        ({}, None, True, []),
        ({}, "dp", True, []),
        ({"adapter": {"kind": "rslora"}}, "dp", True, []),
        ({"adapter": {"kind": "dora"}}, "dp", True, ["adapter.kind"]),
        ({"adapter": {"kind": "gelu_lora"}}, "dp", True, ["adapter.kind"]),
        ({"adapter": {"kind": "gelu_lora"}}, None, True, []),
        ({"adapter": {"kind": "gelu_lora"}, "strategy": {"norms": FULL}}, None, True, ["strategy"]),
        ({"strategy": {"preset": "guide"}}, None, True, ["strategy"]),
        ({"strategy": {"preset": "guide", "untie": True}}, None, True, []),
        ({"strategy": {"preset": "guide"}}, None, False, []),
        ({"strategy": {"norms": FULL}}, None, True, []),
    ],
)
def test_check_refuses_before_a_weight_is_loaded(
    tables: dict[str, Any], private: str | None, tie: bool, keys: list[str], tmp_path: Path
) -> None:
    llama(tie=tie).config.save_pretrained(tmp_path)
    found = list(refusals(recipe(**tables), tmp_path, private))
    assert [refusal.key for refusal in found] == keys
    assert all(refusal.fix and "\n" not in refusal.found for refusal in found)


def test_a_configuration_that_leaves_tying_to_the_class_is_told_by_the_weights(tmp_path: Path) -> None:
    for make, expected in ((lambda: llama(tie=True), True), (llama, False), (gpt2, True)):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        make().save_pretrained(folder)
        assert ties(folder) is expected
        config = json.loads((folder / "config.json").read_text())
        config.pop("tie_word_embeddings", None)
        (folder / "config.json").write_text(json.dumps(config))
        assert ties(folder) is expected
    assert ties(tmp_path / "nowhere") is False


def test_the_module_of_checks_is_torch_free() -> None:
    import subprocess
    import sys

    code = "import sys, r1core.model.strategy, r1core.model.roles, r1core.model.headers; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert re.fullmatch("False\n", done.stdout)
