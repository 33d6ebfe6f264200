"""A tiny GGUF file written by gguf's own writer, and the real model converted once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from r1core_smollm2 import wheel
from r1core_smollm2.source import NAME, SmolLM2Source

from r1core import api

D, F, H, K, W, BLOCKS = 64, 96, 4, 2, 16, 2  # hidden, feed-forward, heads, key-value heads, head width, layers
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def byte_alphabet() -> list[str]:
    """The 256 characters by which byte-level BPE writes bytes."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


@pytest.fixture(scope="session")
def write_tiny() -> Callable[..., Path]:
    """`write_tiny(path, skip_key=..., skip_tensor=..., change={tensor: array})`: a two-layer Llama, mixed types."""
    import gguf

    def write(path: Path, *, skip_key: str = "", skip_tensor: str = "", change: dict | None = None) -> Path:
        rng = np.random.default_rng(0)
        tokens = [*SPECIAL, *byte_alphabet(), "he", "ll", "hell"]
        writer = gguf.GGUFWriter(path, "llama")
        numbers = {
            "llama.block_count": BLOCKS, "llama.context_length": 128, "llama.embedding_length": D,
            "llama.feed_forward_length": F, "llama.attention.head_count": H, "llama.attention.head_count_kv": K,
            "llama.rope.dimension_count": W, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.padding_token_id": 2,
        }  # fmt: skip
        for key, number in numbers.items():
            if key != skip_key:
                writer.add_uint32(key, number)
        writer.add_float32("llama.rope.freq_base", 100000.0)
        writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        writer.add_string("tokenizer.ggml.model", "gpt2")
        writer.add_string("tokenizer.ggml.pre", "smollm")
        writer.add_array("tokenizer.ggml.tokens", tokens)
        writer.add_array("tokenizer.ggml.token_type", [3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
        writer.add_array("tokenizer.ggml.merges", ["h e", "l l", "he ll"])
        writer.add_string("tokenizer.chat_template", TEMPLATE)
        shapes = {"token_embd": (len(tokens), D), "output_norm": (D,)}
        for i in range(BLOCKS):
            block = {"attn_norm": (D,), "attn_q": (H * W, D), "attn_k": (K * W, D), "attn_v": (K * W, D),
                     "attn_output": (D, H * W), "ffn_norm": (D,), "ffn_gate": (F, D), "ffn_up": (F, D),
                     "ffn_down": (D, F)}  # fmt: skip
            shapes |= {f"blk.{i}.{name}": shape for name, shape in block.items()}
        for name, shape in shapes.items():
            full = f"{name}.weight"
            values = (change or {}).get(full, rng.standard_normal(shape).astype(np.float32) * 0.05)
            kind = "F32" if len(shape) == 1 else "Q8_0" if name == "token_embd" else "F16" if "ffn" in name else "Q4_1"
            if full != skip_tensor:
                quantised = gguf.GGMLQuantizationType[kind]
                writer.add_tensor(full, gguf.quants.quantize(values, quantised), raw_dtype=quantised)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.fixture(scope="session")
def tiny(write_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def real() -> Path:
    """The GGUF file of the installed wheel."""
    try:
        return wheel.locate().path
    except api.UserError as error:
        pytest.skip(f"{error}; {error.fix}")


@pytest.fixture(scope="session")
def converted(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model's converted directory."""
    return SmolLM2Source(cache=tmp_path_factory.mktemp("cache")).materialise(NAME)
