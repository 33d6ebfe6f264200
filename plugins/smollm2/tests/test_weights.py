"""Bit-for-bit equality with the reference dequantisation."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from r1core_smollm2.convert import convert
from r1core_smollm2.header import read_header
from r1core_smollm2.weights import bfloat16_bits
from r1core_smollm2.wheel import Weights
from safetensors import safe_open


@given(hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_rounding_is_that_of_torch(values: np.ndarray) -> None:
    expected = torch.from_numpy(values.copy()).bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(bfloat16_bits(values), expected)


def test_every_tie_rounds_as_in_torch() -> None:
    """All finite upper halves with the lower halves just below, at and above the middle."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    bits = (upper[:, None] | np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).ravel()
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    expected = torch.from_numpy(values.copy()).bfloat16().view(torch.uint16).numpy()
    assert np.array_equal(bfloat16_bits(values), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        bfloat16_bits(np.array([1.0, value], np.float32))


def reference(path: Path, name: str, heads: int) -> torch.Tensor:
    """gguf's dequantisation and torch's cast; rows put in order one by one, from the two rotary definitions.

    llama.cpp rotates the pair of rows (2j, 2j + 1) of a head, transformers the pair (j, j + width / 2).
    """
    info = read_header(path).tensors[name]
    kind = gguf.GGMLQuantizationType(info.type)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(np.prod(info.shape))
    stored = np.fromfile(path, np.uint8, count // block * size, offset=info.offset)
    stored = stored.reshape(*info.shape[:-1], info.shape[-1] // block * size)
    values = torch.from_numpy(gguf.quants.dequantize(stored, kind).copy()).to(torch.bfloat16).reshape(info.shape)
    if not heads:
        return values
    width, ordered = info.shape[0] // heads, torch.empty_like(values)
    for head in range(heads):
        for j in range(width // 2):
            ordered[head * width + j] = values[head * width + 2 * j]
            ordered[head * width + j + width // 2] = values[head * width + 2 * j + 1]
    return ordered


def saved(directory: Path, name: str) -> torch.Tensor:
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        return file.get_tensor(name)


def assert_same_bits(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.dtype == torch.bfloat16
    assert torch.equal(found.view(torch.int16), expected.view(torch.int16))


SOME = [
    ("token_embd.weight", "model.embed_tokens.weight", 0, 0),
    ("output_norm.weight", "model.norm.weight", 0, 0),
    ("blk.0.attn_q.weight", "model.layers.0.self_attn.q_proj.weight", 9, 4),
    ("blk.1.attn_k.weight", "model.layers.1.self_attn.k_proj.weight", 3, 2),
    ("blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight", 0, 0),
    ("blk.0.attn_output.weight", "model.layers.0.self_attn.o_proj.weight", 0, 0),
    ("blk.1.ffn_gate.weight", "model.layers.1.mlp.gate_proj.weight", 0, 0),
    ("blk.1.ffn_up.weight", "model.layers.1.mlp.up_proj.weight", 0, 0),
    ("blk.0.ffn_down.weight", "model.layers.0.mlp.down_proj.weight", 0, 0),
    ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight", 0, 0),
    ("blk.1.attn_norm.weight", "model.layers.1.input_layernorm.weight", 0, 0),
]


@pytest.mark.parametrize(("theirs", "ours", "heads", "tiny_heads"), SOME)
def test_a_small_file_is_the_reference(
    theirs: str, ours: str, heads: int, tiny_heads: int, tiny: Path, tmp_path: Path
) -> None:
    convert(Weights(tiny), "0" * 64, tmp_path)
    assert_same_bits(saved(tmp_path, ours), reference(tiny, theirs, tiny_heads))


@pytest.mark.parametrize(("theirs", "ours", "heads", "tiny_heads"), SOME[1:])
def test_the_real_weights_are_the_reference(
    theirs: str, ours: str, heads: int, tiny_heads: int, real: Path, converted: Path
) -> None:
    assert_same_bits(saved(converted, ours), reference(real, theirs, heads))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_every_real_weight_is_what_transformers_loads_from_the_gguf_file(real: Path, converted: Path) -> None:
    from transformers import AutoModelForCausalLM, GgufConfig

    theirs = AutoModelForCausalLM.from_pretrained(
        real.parent, gguf_file=real.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    ).state_dict()
    ours = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.bfloat16).state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert_same_bits(tensor, theirs[name])


def test_the_model_loads_whole_and_knows_paris(converted: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, info = AutoModelForCausalLM.from_pretrained(converted, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    config = model.config
    assert (config.tie_word_embeddings, config.rope_parameters["rope_theta"]) == (True, 100000.0)
    assert (config.rms_norm_eps, config.max_position_embeddings, config.vocab_size) == (1e-5, 8192, 49152)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 2)
    assert model.dtype == torch.bfloat16
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    tokenizer = AutoTokenizer.from_pretrained(converted)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    with torch.inference_mode():
        answer = model.generate(**prompt, do_sample=False, max_new_tokens=12)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])
