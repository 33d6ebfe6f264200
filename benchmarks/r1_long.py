"""A whole upcycled R1 over 200,000 tokens on a GPU: prefill, decoding, memory, and what the cache holds.

Run: python benchmarks/r1_long.py [--model DIR] [--tokens 204000] [--decode 128]
Without `--model` the weights are random, in the shape of SmolLM2-135M upcycled to 128 experts: speed and memory are
alike. The window of 4,096 with a node every 256 is set on the upcycled model. Greedy decoding goes on from the
prefill, token by token; the first tokens of it warm up and are not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from record import write
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.change import Change
from r1core.model.r1.upcycle import upcycled
from r1core.model.upcycling import Upcycling

SMOLLM2 = LlamaConfig(
    vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
)  # fmt: skip
WARM = 16


def made(folder: Path | None) -> R1ForCausalLM:
    """The model with its window, in bf16 on the GPU."""
    if folder is None:
        torch.manual_seed(0)
        source = upcycled(LlamaForCausalLM(SMOLLM2).bfloat16(), Upcycling())
    else:
        source = R1ForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    config = Change(window=4096, every=256, positions=204_800).applied(source.config)
    model = R1ForCausalLM(config).bfloat16()
    model.load_state_dict(source.state_dict())
    return model.cuda().eval()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tokens", type=int, default=204_000)
    parser.add_argument("--decode", type=int, default=128)
    chosen = parser.parse_args()
    torch.backends.cuda.enable_cudnn_sdp(False)  # as r1core loads models; it makes a plan anew for every length
    model = made(chosen.model)
    ids = torch.randint(0, model.config.vocab_size, (1, chosen.tokens), device="cuda")
    prefills = []
    for _ in range(3):
        cache = DynamicCache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        start = time.perf_counter()
        token = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1:].argmax(-1)
        torch.cuda.synchronize()
        prefills.append(time.perf_counter() - start)
    steps = []
    for _ in range(WARM + chosen.decode):
        start = time.perf_counter()
        token = model(token, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)
        torch.cuda.synchronize()
        steps.append(time.perf_counter() - start)
    report(model, cache, chosen.tokens, statistics.median(prefills[1:]), statistics.median(steps[WARM:]))


def report(model: R1ForCausalLM, cache: DynamicCache, tokens: int, prefill: float, step: float) -> None:
    """Write times, memory and the cache's share."""
    peak = torch.cuda.max_memory_allocated() / 2**30
    held = sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))
    config = model.config
    plain = (
        2
        * 2
        * config.num_hidden_layers
        * config.num_key_value_heads
        * int(config.head_dim or 0)
        * cache.get_seq_length()
    )
    where = {"target": None, "met": None, "peer": None, "machine": torch.cuda.get_device_name()}
    size = f"R1 of {model.num_parameters() / 1e6:.0f}M parameters, {tokens} tokens"
    write("r1_long", [
        {**where, "figure": f"{size}, prefill", "value": round(tokens / prefill), "unit": "tokens/s"},
        {**where, "figure": f"{size}, decoding, batch of 1", "value": round(1 / step, 1), "unit": "tokens/s"},
        {**where, "figure": f"{size}, peak memory", "value": round(peak, 2), "unit": "GiB",
         "target": 40, "met": peak <= 40},
        {**where, "figure": f"{size}, cache over the whole cache in bf16", "value": round(held / plain, 4), "unit": "x",
         "target": 0.03, "met": held / plain <= 0.03},
    ])  # fmt: skip


if __name__ == "__main__":
    main()
