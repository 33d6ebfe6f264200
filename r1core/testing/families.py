"""Tiny random models of published families, and a tokenizer that knows `<think>` blocks, all built in code.

Each model has the parts by which its family differs (DeepSeek-V3: latent attention, a dense block, a gate with groups
and a shared expert; Qwen3-MoE: stacked experts). The chat templates say what the published ones say of reasoning, in
ChatML's markers; they are written here, not copied. No weights of anybody.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1core.testing.tiny import CHAT_TEMPLATE, CONTEXT, HIDDEN, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'].split('</think>')[-1].lstrip('\n') if message['role'] == 'assistant'"
    " else message['content'] }}<|im_end|>\n{% endfor %}"
)
TEMPLATES = {
    "plain": CHAT_TEMPLATE,
    "free": _TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "open": _TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
    "closed": _TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}",
}
"""What a generation prompt does about reasoning: it has no blocks; leaves it to the model; opens one; closes it."""

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("plain", {"num_key_value_heads": 2}),
    "qwen3": ("free", {"num_key_value_heads": 2, "head_dim": 8}),
    "qwen3_moe": (
        "free",
        {"num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2}
        | {"moe_intermediate_size": 16},
    ),
    "deepseek_v3": (
        "open",
        {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
        | {"v_head_dim": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 2}
        | {"topk_group": 1, "first_k_dense_replace": 1, "moe_intermediate_size": 16},
    ),
}
"""`model_type` to the template that its family has, and what its configuration says beyond the common part."""


@functools.cache
def reasoning_tokenizer(template: str = "free") -> PreTrainedTokenizerFast:
    """The tiny tokenizer with `<think>` and `</think>` as tokens (plain text to it, not special) and a template."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    if template != "plain":
        tokenizer.add_tokens(["<think>", "</think>"], special_tokens=False)
    tokenizer.chat_template = TEMPLATES[template]
    return tokenizer


def family_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A random model of a family, fp32, two blocks, weights drawn from `seed` and not from the global generator."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    template, own = FAMILIES[family]
    tokenizer = reasoning_tokenizer(template)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **own,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def family_dir(path: Path, family: str, seed: int = 0, template: str = "") -> Path:
    """Save a model of a family and its tokenizer as a Hugging Face directory and return it.

    Parameters
    ----------
    template : another one of `TEMPLATES` than the family's.
    """
    path.mkdir(parents=True, exist_ok=True)
    family_model(family, seed).save_pretrained(path)
    tokenizer = copy.deepcopy(reasoning_tokenizer(FAMILIES[family][0]))
    tokenizer.chat_template = TEMPLATES[template or FAMILIES[family][0]]
    tokenizer.save_pretrained(path)
    return path
