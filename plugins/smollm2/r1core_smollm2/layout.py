"""What the GGUF metadata means to Hugging Face: the Llama configuration and the name and shape of each tensor.

D = hidden size, F = feed-forward size, H = attention heads, K = key-value heads, W = width of a head, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

ARCHITECTURE = "llama"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a GGUF tensor goes.

    Parameters
    ----------
    name : of the parameter in `LlamaForCausalLM`.
    shape : outermost dimension first; the same on both sides.
    heads : number of heads whose rows are stored in llama.cpp's rotary order, 0 for every other tensor.
    """

    name: str
    shape: tuple[int, ...]
    heads: int = 0


def model_config(metadata: dict[str, Any], tensors: Collection[str]) -> dict[str, Any]:
    """The content of `config.json`.

    Parameters
    ----------
    tensors : names of the tensors in the file; without `output.weight` the output head is the embedding matrix.

    Raises
    ------
    KeyError : where the metadata lacks a key. ValueError : where the file holds another architecture.
    """
    if (found := metadata["general.architecture"]) != ARCHITECTURE:
        raise ValueError(f"architecture {found!r}, expected {ARCHITECTURE!r}")
    hidden, heads = metadata["llama.embedding_length"], metadata["llama.attention.head_count"]
    if (blocks := metadata["llama.block_count"]) > len(tensors):
        raise ValueError(f"llama.block_count is {blocks:,} with {len(tensors):,} tensors")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": hidden,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata.get("llama.rope.dimension_count", hidden // heads),
        "hidden_act": "silu",
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": _shortest(metadata["llama.attention.layer_norm_rms_epsilon"]),
        "rope_parameters": {"rope_type": "default", "rope_theta": _shortest(metadata["llama.rope.freq_base"])},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "tie_word_embeddings": "output.weight" not in tensors,
        "use_cache": True,
        **special_ids(metadata),
    }


def special_ids(metadata: dict[str, Any]) -> dict[str, int]:
    """Token ids of begin, end and padding, under the names that Hugging Face uses."""
    names = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
    return {theirs: metadata[f"tokenizer.ggml.{ours}_token_id"] for ours, theirs in names.items()}


def targets(config: dict[str, Any]) -> dict[str, Target]:
    """Every tensor that the file must hold, by its GGUF name."""
    d, f, v = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    h, k, w = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    found = {
        "token_embd.weight": Target("model.embed_tokens.weight", (v, d)),
        "output_norm.weight": Target("model.norm.weight", (d,)),
    }
    if not config["tie_word_embeddings"]:
        found["output.weight"] = Target("lm_head.weight", (v, d))
    block = {
        "attn_norm": Target("input_layernorm", (d,)),
        "attn_q": Target("self_attn.q_proj", (h * w, d), heads=h),
        "attn_k": Target("self_attn.k_proj", (k * w, d), heads=k),
        "attn_v": Target("self_attn.v_proj", (k * w, d)),
        "attn_output": Target("self_attn.o_proj", (d, h * w)),
        "ffn_norm": Target("post_attention_layernorm", (d,)),
        "ffn_gate": Target("mlp.gate_proj", (f, d)),
        "ffn_up": Target("mlp.up_proj", (f, d)),
        "ffn_down": Target("mlp.down_proj", (d, f)),
    }
    for i in range(config["num_hidden_layers"]):
        for name, target in block.items():
            full = f"model.layers.{i}.{target.name}.weight"
            found[f"blk.{i}.{name}.weight"] = Target(full, target.shape, target.heads)
    return found


def _shortest(value: float) -> float:
    """GGUF keeps float32; the shortest decimal that rounds to it is the number that was meant (1e-05)."""
    return float(str(np.float32(value)))
