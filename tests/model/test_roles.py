"""Roles of weights: on tiny random models of many architectures, against the classes of their modules."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from r1core.model.headers import tensor_shapes
from r1core.model.placement import linear_kinds
from r1core.model.roles import block_of, plain_name, role_of
from r1core.recipe.strategy import ROLES, Strategy

BLOCKS = 4
LLAMA = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT2 = {"vocab_size": 64, "n_embd": 16, "n_layer": BLOCKS, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
PLAIN = {
    "vocab_size": 64, "hidden_size": 16, "num_hidden_layers": BLOCKS, "num_attention_heads": 2, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
CONFIGS: dict[str, dict[str, object]] = {
    "LlamaConfig": LLAMA,
    "GPT2Config": GPT2,
    "GPTJConfig": {**GPT2, "rotary_dim": 4},
    "GPTNeoXConfig": {**PLAIN, "intermediate_size": 24},
    "OPTConfig": {**PLAIN, "ffn_dim": 24, "word_embed_proj_dim": 8, "max_position_embeddings": 64},
    "Qwen3Config": {**LLAMA, "head_dim": 8},
    "GemmaConfig": {**LLAMA, "head_dim": 8},
    "Gemma3TextConfig": {**LLAMA, "head_dim": 8},
    "MixtralConfig": {**LLAMA, "num_local_experts": 4},
    "OlmoeConfig": {**LLAMA, "num_experts": 4},
    "FalconConfig": PLAIN,
    "PhiConfig": LLAMA,
    "BloomConfig": {"vocab_size": 64, "hidden_size": 16, "n_layer": BLOCKS, "n_head": 2},
    "MptConfig": {"vocab_size": 64, "d_model": 16, "n_layers": BLOCKS, "n_heads": 2},
}
DEPTH = ("shallow", "shallow", "middle", "deep")
"""Of four blocks, as floor(3 i / 4) says."""


def model_of(name: str) -> PreTrainedModel:
    config: PreTrainedConfig = getattr(transformers, name)(**CONFIGS[name])
    return AutoModelForCausalLM.from_config(config)


def by_class(model: PreTrainedModel) -> Counter[str]:
    """Weights a role, told by classes of modules and by which part of a block they are in, not by the rule's words."""
    counts: Counter[str] = Counter()
    embeddings = {id(model.get_input_embeddings().weight)}
    blocks = next(m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == BLOCKS)
    inside = {id(p): (i, part) for i, b in enumerate(blocks) for part, m in b.named_children() for p in m.parameters()}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            normal = "Norm" in type(module).__name__
            if normal:
                role = "norms"
            elif id(parameter) in inside:
                index, part = inside[id(parameter)]
                mixes = part in ("attn", "attention", "self_attn", "self_attention")
                role = f"{DEPTH[index]}_{'attention' if mixes else 'feed_forward'}"
            elif isinstance(module, nn.Embedding) or id(parameter) in embeddings:
                role = "embeddings"
            else:
                first = getattr(model.base_model, "decoder", None)
                role = "embeddings" if first is not None and module is first.project_in else "output"
            if id(parameter) in embeddings and not isinstance(module, nn.Embedding):
                continue  # a tied head
            counts[role] += parameter.numel()
    return counts


@pytest.mark.parametrize("name", CONFIGS)
def test_every_weight_has_the_role_that_its_module_tells(name: str) -> None:
    model = model_of(name)
    counts: Counter[str] = Counter()
    for weight, parameter in model.named_parameters():
        counts[role_of(weight, BLOCKS)] += parameter.numel()
    assert set(counts) <= set(ROLES)
    assert counts == by_class(model)
    assert counts.total() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_module_has_the_role_of_its_weights(name: str) -> None:
    for path, module in model_of(name).named_modules():
        if isinstance(module, linear_kinds()):
            assert role_of(path, BLOCKS) == role_of(f"{path}.weight", BLOCKS)


@pytest.mark.parametrize("name", ["LlamaConfig", "MixtralConfig", "GPT2Config"])
def test_headers_of_saved_weights_give_the_same_counts(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    model.save_pretrained(tmp_path)
    saved: Counter[str] = Counter()
    for weight, shape in tensor_shapes(tmp_path):
        size = 1
        for side in shape:
            size *= side
        saved[role_of(weight, BLOCKS)] += size
    assert saved == by_class(model)


def test_thirds_of_the_blocks() -> None:
    def depths(blocks: int) -> list[str]:
        return [role_of(f"model.layers.{i}.mlp.up_proj.weight", blocks).partition("_")[0] for i in range(blocks)]

    assert depths(30) == ["shallow"] * 10 + ["middle"] * 10 + ["deep"] * 10
    assert depths(3) == ["shallow", "middle", "deep"]
    assert depths(2) == ["shallow", "middle"]
    assert depths(1) == ["shallow"]
    assert role_of("model.layers.61.mlp.up_proj.weight", 61).startswith("deep"), "a head that predicts further"


@pytest.mark.parametrize(
    ("name", "plain", "role"),
    [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight", "model.layers.0.self_attn.q_proj",
         "shallow_attention"),
        ("base_model.model.model.layers.3.mlp.up_proj.base_layer.weight", "model.layers.3.mlp.up_proj",
         "deep_feed_forward"),
        ("base_model.model.model.layers.2.input_layernorm.modules_to_save.default.weight",
         "model.layers.2.input_layernorm", "norms"),
        ("base_model.model.lm_head.modules_to_save.default.weight", "lm_head", "output"),
        ("model.layers.2.mlp.up_proj.gelu_B.bias", "model.layers.2.mlp.up_proj", "middle_feed_forward"),
        ("transformer.blocks.0.norm_attn_norm.attn.Wqkv.weight", "transformer.blocks.0.norm_attn_norm.attn.Wqkv",
         "shallow_attention"),
        ("model.layers.1.block_sparse_moe.experts.3.w1.weight", "model.layers.1.block_sparse_moe.experts.3.w1",
         "shallow_feed_forward"),
        ("backbone.layers.1.mixer.conv1d.weight", "backbone.layers.1.mixer.conv1d", "shallow_attention"),
        ("model.layers.0.self_attn.sinks", "model.layers.0.self_attn.sinks", "shallow_attention"),
    ],
)  # fmt: skip
def test_names_of_adapters_and_of_other_layouts(name: str, plain: str, role: str) -> None:
    assert plain_name(name) == plain
    assert role_of(name, BLOCKS) == role


def test_outside_the_blocks() -> None:
    assert block_of("model.embed_tokens.weight") is None
    assert role_of("transformer.wpe.weight", BLOCKS) == "embeddings"
    assert role_of("embed_out.weight", BLOCKS) == "output"


def test_the_table_has_a_key_for_every_role() -> None:
    assert set(Strategy.model_fields) == {*ROLES, "preset", "untie"}
    assert json.loads(Strategy().model_dump_json(exclude_none=True)) == {"preset": "", "untie": False}
