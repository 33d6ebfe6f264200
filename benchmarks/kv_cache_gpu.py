"""The packed key/value cache on a GPU: whole decoding steps beside the library's caches, and what one layer takes.

Run: python benchmarks/kv_cache_gpu.py [--shapes smollm2 1b] [--rows 1 8] [--contexts 4000 16000] [--steps 64]
The peers, the library's `QuantizedCache` at 4 bits with quanto (its default) and hqq, are measured in the same process
where they are installed (benchmarks/peers/requirements-kv.txt).

First the kernels are held against plain torch: attention from the codes against unpacking and
`scaled_dot_product_attention` in fp64, packing against packing without them. Then models of random weights in bf16:
caches filled with the same random states, some steps of each in turn (A B C D D C B A), the first of them not counted.
A step is timed from its call until the GPU is done. Medians; means beside them, since a block is packed only now and
then. A layer alone is timed as replays of a captured graph, so that launching costs nothing: attention from the codes,
and the library's fused attention to exact bf16 states.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import triton.testing
from record import write
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedConfig, QuantizedCache
from transformers.cache_utils import Cache

from r1core.model.kv.blocks import quantise, quantise_plainly
from r1core.model.kv.cache import PackedCache
from r1core.model.kv.states import Held, PackedStates

SHAPES = {
    "smollm2": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                "num_key_value_heads": 3},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8},
}  # fmt: skip
"""SmolLM2-135M's sizes, and those of a model of a billion parameters; heads are 64 wide in both."""
BURST = 8
"""Steps of one cache before it is the next one's turn; each first one finds another's memory, and is not counted."""
WIDTHS = ((64, 64), (128, 128), (24, 16), (80, 80))
MOST = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Largest relative error of the kernel: rounding of the softmax' weights to the dtype of the values."""


def filled(bits: int, tokens: int, widths: tuple[int, int], dtype: torch.dtype) -> Held:
    """Keys and values of 2 rows and 3 heads; a channel of the keys lies far off."""
    keys = torch.randn(2, 3, tokens, widths[0], device="cuda")
    keys[..., 3] = keys[..., 3] * 5 + 20
    states = PackedStates(bits)
    states.append(keys.to(dtype), torch.randn(2, 3, tokens, widths[1], device="cuda", dtype=dtype))
    return states.append(*(torch.randn(2, 3, 1, width, device="cuda", dtype=dtype) for width in widths))


@torch.no_grad()
def wrong(held: Held, group: int, new: int, dtype: torch.dtype, kind: str) -> float:
    """Relative error of attention from the codes, or of its log where that is larger."""
    query = torch.randn(2, 3 * group, new, held.newest[0].shape[-1], device="cuda", dtype=dtype)
    seen = torch.rand(2, 1, new, held.length, device="cuda") < 0.7
    masks = {"none": None, "bool": seen, "added": torch.randn(1, 3 * group, 1, held.length, device="cuda").to(dtype)}
    mask = masks[kind]
    keys, values = (part.double().repeat_interleave(group, 1) for part in (held.read_keys(), held.read_values()))
    added = mask.double() if kind == "added" else mask
    scores = query.double() @ keys.mT * 0.1
    if kind != "none":
        scores = scores + added if kind == "added" else scores.masked_fill(~seen, -torch.inf)
    right = scaled_dot_product_attention(query.double(), keys, values, added, scale=0.1)
    out, log = held.attend_in_part(query, mask, 0.1)
    errors = [(a.double() - b).norm() / b.norm() for a, b in ((out, right), (log, scores.logsumexp(-1)))]
    return float(max(errors)) if bool(torch.isfinite(out).all()) else float("inf")


def agreement() -> list[Mapping[str, object]]:
    """Rows on how far the kernels are from plain torch."""
    worst: dict[torch.dtype, float] = dict.fromkeys(MOST, 0.0)
    half, whole, small = torch.bfloat16, torch.float32, torch.float16
    cases = [(4, widths, half, 3, 1) for widths in WIDTHS] + [(bits, WIDTHS[0], half, 4, 1) for bits in (5, 6)]
    cases += [(4, WIDTHS[0], whole, 3, 2), (5, WIDTHS[3], whole, 1, 3), (6, WIDTHS[1], small, 8, 8)]
    for at, (bits, widths, dtype, group, new) in enumerate(cases):
        for tokens in (400, 2000):
            held = filled(bits, tokens, widths, dtype)
            all_kinds = ((held, "none"), (held, "bool"), (held.last(250), "added"))
            for view, kind in all_kinds if at % 6 == 0 else all_kinds[2:]:  # each kind is a kernel to compile
                error = wrong(view, group, new, dtype, kind)
                worst[dtype] = max(worst[dtype], error)
                if not error < MOST[dtype]:
                    what = f"{bits} bits, {widths}, {dtype}, {group} x {new}, {tokens} tokens, mask {kind}"
                    print(f"WRONG {what}: {error}", flush=True)
    rows = [
        row(f"relative error of the kernel, {str(dtype).split('.')[1]}", found, "share", MOST[dtype], at_most=True)
        for dtype, found in worst.items()
    ]
    other, bytes_ = 0, 0
    for bits in (4, 5, 6):
        for widths in WIDTHS:
            keys, values = (torch.randn(2, 3, 320, width, device="cuda").bfloat16() for width in widths)
            mine, plain = quantise(keys, values, bits), quantise_plainly(keys, values, bits)
            for a, b in zip(mine.tensors(), plain.tensors(), strict=True):
                if a.shape != b.shape or a.dtype != b.dtype:
                    print(f"WRONG {bits} {widths}: {a.shape} {b.shape}", flush=True)
                other += int((a != b).sum())
                bytes_ += a.numel()
    return [*rows, row("packed bytes unlike those of plain torch", other / bytes_, "share", 1e-3, at_most=True)]


def row(
    figure: str, value: float, unit: str, target: float | None = None, peer: object = None, *, at_most: bool = False
) -> Mapping[str, object]:
    met = None if target is None else (value <= target if at_most else value >= target)
    where = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    told = float(f"{value:.4g}")
    return {"figure": figure, "value": told, "unit": unit, "target": target, "met": met, "peer": peer, "machine": where}


def caches(config: PreTrainedConfig) -> dict[str, Callable[[], Cache]]:
    """An empty cache by name."""
    made: dict[str, Callable[[], Cache]] = {"exact": DynamicCache, "packed 4": lambda: PackedCache(4, config)}
    if importlib.util.find_spec("optimum"):
        made["quanto 4"] = lambda: QuantizedCache("quanto", config, nbits=4)
    if importlib.util.find_spec("hqq"):
        made["hqq 4"] = lambda: QuantizedCache("hqq", config, nbits=4, axis_key=1, axis_value=1)
    return made


@torch.no_grad()
def steps(model: LlamaForCausalLM, rows: int, context: int, count: int) -> dict[str, list[float]]:
    """Seconds of each pass over one new token a row, by cache."""
    config = model.config
    made = {name: make() for name, make in caches(config).items()}
    for layer in range(config.num_hidden_layers):
        shape = (2, rows, config.num_key_value_heads, context, config.head_dim)
        states = torch.randn(*shape, dtype=torch.bfloat16, device="cuda")
        for name, cache in list(made.items()):
            try:
                cache.update(states[0], states[1], layer)
            except Exception as error:
                print(f"{name} left out: {type(error).__name__}: {str(error)[:200]}", flush=True)
                del made[name]
    token = torch.full((rows, 1), 5, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in made}
    for turn in range(1 + count // BURST):
        for name in list(made) if turn % 2 else list(made)[::-1]:
            for step in range(BURST + 1):
                torch.cuda.synchronize()
                start = time.perf_counter()
                model(input_ids=token, past_key_values=made[name], use_cache=True)
                torch.cuda.synchronize()
                if turn and step:  # the first turn compiles
                    times[name].append(time.perf_counter() - start)
    return times


@torch.no_grad()
def layer(config: PreTrainedConfig, rows: int, context: int) -> dict[str, float]:
    """Milliseconds of one layer's attention, without launching."""
    groups, heads, width = config.num_key_value_heads, config.num_attention_heads, config.head_dim
    keys, values = torch.randn(2, rows, groups, context, width, dtype=torch.bfloat16, device="cuda")
    query = torch.randn(rows, heads, 1, width, dtype=torch.bfloat16, device="cuda")
    states = PackedStates(4)
    states.append(keys, values)
    held = states.held
    assert held is not None

    def exact() -> torch.Tensor:
        return scaled_dot_product_attention(query, keys, values, enable_gqa=True)

    ways = {"packed 4": lambda: held.attend(query), "exact": exact}
    return {name: triton.testing.do_bench_cudagraph(way, rep=20, return_mode="median") for name, way in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--contexts", type=int, nargs="+", default=[4000, 16000])
    parser.add_argument("--steps", type=int, default=64)
    chosen = parser.parse_args()
    table = agreement()
    for shape in chosen.shapes:
        config = LlamaConfig(**SHAPES[shape], vocab_size=49_152, max_position_embeddings=32_768)
        model = LlamaForCausalLM(config).to("cuda", torch.bfloat16).eval()
        for rows in chosen.rows:
            for context in chosen.contexts:
                where = f"{shape}, {context} tokens, {rows} row{'s' * (rows > 1)}"
                alone = layer(config, rows, context)
                peer = {name: float(f"{taken:.3g}") for name, taken in alone.items()}
                ratio = alone["exact"] / alone["packed 4"]
                table.append(row(f"speed of one layer over the fused exact one, {where}", ratio, "ratio", peer=peer))
                taken = steps(model, rows, context, chosen.steps)
                middle = {name: statistics.median(times) for name, times in taken.items()}
                told = {n: {"median ms": round(1e3 * middle[n], 2), "mean ms": round(1e3 * statistics.mean(t), 2)}
                        for n, t in taken.items()}  # fmt: skip
                print(where, peer, told, flush=True)
                for name in taken:
                    if name != "packed 4":
                        target = 2.0 if name == "quanto 4" else None
                        ratio = middle[name] / middle["packed 4"]
                        table.append(row(f"decode speed at 4 bits over {name}, {where}", ratio, "ratio", target, told))
                torch.cuda.empty_cache()
    write("kv_cache_gpu", table)


if __name__ == "__main__":
    main()
