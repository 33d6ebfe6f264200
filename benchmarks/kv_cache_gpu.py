"""The packed key/value cache on a GPU: whole decoding steps, recorded and not, beside the library's caches.

Run: python benchmarks/kv_cache_gpu.py [--shapes smollm2 1b r1] [--rows 1 8] [--contexts 4000 16000] [--steps 64]
The peers, the library's `QuantizedCache` at 4 bits with quanto (its default) and hqq, are measured in the same process
where they are installed (benchmarks/peers/requirements-kv.txt). R1 has no peer but its own steps that are not recorded.

First the kernels are held against plain torch: attention from the codes against unpacking and
`scaled_dot_product_attention` in fp64, packing against packing without them. Recorded steps are held against steps as
they are, 200 in a row over borders of blocks, reading the same tokens, of 1 and 8 rows, padded on the left and not.
Then models of random weights in bf16: caches filled with the same random states, some steps of each in turn
(A B C D D C B A), the first of them not counted. A step is timed from its call until the GPU is done. Medians; means
beside them, since a block is packed only now and then. A layer alone is timed as replays of a captured graph, so that
launching costs nothing: attention from the codes, and the library's fused attention to exact bf16 states.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
import triton.testing
from record import write
from torch.nn.functional import scaled_dot_product_attention
from transformers import DynamicCache, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel, QuantizedCache
from transformers.cache_utils import Cache

from r1core.model.kv.blocks import quantise, quantise_plainly
from r1core.model.kv.cache import PackedCache
from r1core.model.kv.held import Held
from r1core.model.kv.layout import BLOCK
from r1core.model.kv.states import FIRST, NEWEST, PackedStates
from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.cache import furnished
from r1core.model.r1.reach import Reach, reach
from r1core.model.recording import recording

SHAPES = {
    "smollm2": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
                "num_key_value_heads": 3},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8},
    "r1": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
           "num_key_value_heads": 3, "moe_intermediate_size": 64},
}  # fmt: skip
"""SmolLM2-135M's sizes, those of a model of a billion parameters, and of an R1 with a window of 4,096 and 128 experts;
heads are 64 wide in all."""
RECORDED, EXACT_RECORDED = "packed 4, recorded", "exact, recorded"
PARTS = ("agreement", "recorded", "speed")
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


def model_of(shape: str, dtype: torch.dtype = torch.bfloat16, **changed: int) -> PreTrainedModel:
    """A model of random weights."""
    kind = R1ForCausalLM if shape == "r1" else LlamaForCausalLM
    sizes = {"vocab_size": 49_152, "max_position_embeddings": 32_768, **SHAPES[shape], **changed}
    return kind(kind.config_class(**sizes)).to("cuda", dtype).eval()


def caches(config: PreTrainedConfig) -> dict[str, Callable[[], Cache]]:
    """An empty cache by name."""
    packed = {name: lambda: PackedCache(4, config) for name in ("packed 4", RECORDED)}
    if config.model_type == "r1":
        layers = config.num_hidden_layers
        packed = {name: lambda: furnished(PackedCache(4), layers) for name in packed}
        return {"exact": DynamicCache, EXACT_RECORDED: DynamicCache, **packed}
    made: dict[str, Callable[[], Cache]] = {"exact": DynamicCache, **packed}
    if importlib.util.find_spec("optimum"):
        made["quanto 4"] = lambda: QuantizedCache("quanto", config, nbits=4)
    if importlib.util.find_spec("hqq"):
        made["hqq 4"] = lambda: QuantizedCache("hqq", config, nbits=4, axis_key=1, axis_value=1)
    return made


def fill(made: dict[str, Cache], config: PreTrainedConfig, rows: int, context: int, dtype: torch.dtype) -> None:
    """Put the same random states into all of these; leave out one that cannot take them."""
    told: dict[str, tuple[Reach, ...]] = dict.fromkeys(made, ())
    if config.model_type == "r1":
        for name, cache in made.items():
            furnished(cache, config.num_hidden_layers)
            own = {"window": config.sliding_window, "every": config.global_every}
            at = torch.device("cuda", torch.cuda.current_device())
            told[name] = reach(None, None, shape=(rows, context), device=at, kept=None, **own)[:1]
    for layer in range(config.num_hidden_layers):
        shape = (2, rows, config.num_key_value_heads, context, config.head_dim)
        states = torch.randn(*shape, dtype=dtype, device="cuda")
        for name, cache in list(made.items()):
            try:
                cache.update(states[0], states[1], layer, *told[name])
            except Exception as error:
                print(f"{name} left out: {type(error).__name__}: {str(error)[:200]}", flush=True)
                del made[name]


@torch.no_grad()
def apart(
    model: PreTrainedModel, rows: int, context: int, count: int, padded: int, room: int, kind: str = "packed 4"
) -> tuple[float, float, float]:
    """Steps whose logits are the same to the bit, and those with the same likeliest tokens, as shares; largest error.

    `padded` : tokens of padding in front of the first row. `room` : new tokens there is room for before it grows.
    """
    made = {name: caches(model.config)[kind]() for name in ("plain", RECORDED)}
    fill(made, model.config, rows, context, model.dtype)
    mask = torch.ones(rows, context + count, dtype=torch.long, device="cuda")
    mask[0, :padded] = 0
    token = torch.full((rows, 1), 5, device="cuda")
    same = alike = 0
    errors: list[float] = []
    with recording(model, made[RECORDED], tokens=room) as outcome:
        for step in range(count):
            told: dict[str, torch.Tensor] = {}
            if padded:
                told["attention_mask"] = mask[:, : context + step + 1]
                told["position_ids"] = told["attention_mask"].sum(1, keepdim=True) - 1
            plain, found = (
                model(input_ids=token, past_key_values=made[name], use_cache=True, **told).logits[:, -1].clone()
                for name in ("plain", RECORDED)
            )
            same += int(torch.equal(plain, found))
            alike += int(torch.equal(plain.argmax(-1), found.argmax(-1)))
            errors.append(float((plain.float() - found.float()).norm() / plain.float().norm()))
            token = plain.argmax(-1, keepdim=True)
    what = f"{type(model).__name__}, {kind}, {rows} rows, {padded} padded, {model.dtype}, room for {room}"
    print(f"{what}: {same} same, {alike} alike, error {max(errors):.2g}, of {count} steps; {outcome}", flush=True)
    return same / count, alike / count, max(errors)


def recorded_agreement() -> list[Mapping[str, object]]:
    """Rows on how far recorded steps are from steps as they are: in bf16 to the bit, and in fp32 with padding.

    With padding other versions of the library unpack in a step that is not recorded, which rounds otherwise. A state
    that rounds otherwise may get another code when its block is packed, so these are held against one another until a
    block is packed; weights that differ by 1e-7 part by 1e-4 within 200 steps, too, and now and then by a token.
    """
    model = model_of("smollm2", torch.bfloat16, num_hidden_layers=8, vocab_size=4096)
    found = [apart(model, rows, 700, 200, 0, room) for rows, room in ((1, 1000), (8, 1000), (1, 64))]
    table = [
        row("recorded steps alike to the bit, bf16", min(same for same, *_ in found), "share", 1.0),
        row("recorded steps with the same token, bf16", min(alike for _, alike, _ in found), "share", 1.0),
    ]
    model = model_of("smollm2", torch.float32, num_hidden_layers=8, vocab_size=4096)
    whole = FIRST + NEWEST + 10 * BLOCK
    for count, what in ((BLOCK - 1, "until a block is packed"), (200, "200 steps")):
        found = [apart(model, rows, whole, count, 100, 1000) for rows in (1, 8)]
        error, alike = max(worst for *_, worst in found), min(alike for _, alike, _ in found)
        least, most = (1.0, 1e-4) if count < BLOCK else (None, None)
        table.append(
            row(f"relative error of recorded logits, fp32, padded, {what}", error, "share", most, at_most=True)
        )
        table.append(row(f"recorded steps with the same token, fp32, padded, {what}", alike, "share", least))
    few = {"num_experts": 2, "expert_groups": 2}  # of more, rounding may choose others
    model = model_of("r1", num_hidden_layers=8, vocab_size=4096, sliding_window=512, global_every=8, **few)
    for kind in ("exact", "packed 4"):
        found = [apart(model, rows, 700, 200, 0, 1000, kind) for rows in (1, 8)]
        same, alike, worst = (statistics.mean(each) for each in zip(*found, strict=True))
        told = {"alike to the bit": same, "error, mean of the largest": worst}
        table.append(row(f"recorded steps of R1 with the same token, {kind}", alike, "share", None, told))
    return table


@torch.no_grad()
def steps(model: PreTrainedModel, rows: int, context: int, count: int) -> dict[str, list[float]]:
    """Seconds of each pass over one new token a row, by cache."""
    made = {name: make() for name, make in caches(model.config).items()}
    fill(made, model.config, rows, context, torch.bfloat16)
    token = torch.full((rows, 1), 5, device="cuda")
    times: dict[str, list[float]] = {name: [] for name in made}
    with ExitStack() as stack:
        for name in {RECORDED, EXACT_RECORDED} & set(made):
            stack.enter_context(recording(model, made[name], tokens=2 * count + 64))
        for turn in range(1 + count // BURST):
            for name in list(made) if turn % 2 else list(made)[::-1]:
                for step in range(BURST + 1):
                    torch.cuda.synchronize()
                    start = time.perf_counter()
                    model(input_ids=token, past_key_values=made[name], use_cache=True)
                    torch.cuda.synchronize()
                    if turn and step:  # the first turn compiles, and records
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


def measured(model: PreTrainedModel, shape: str, rows: int, context: int, count: int) -> list[Mapping[str, object]]:
    """Rows on one model, number of rows and context."""
    where = f"{shape}, {context} tokens, {rows} row{'s' * (rows > 1)}"
    taken, table = steps(model, rows, context, count), []
    middle = {name: statistics.median(times) for name, times in taken.items()}
    told = {
        name: {"median ms": round(1e3 * middle[name], 2), "mean ms": round(1e3 * statistics.mean(times), 2)}
        for name, times in taken.items()
    }
    print(where, told, flush=True)
    if shape != "r1":
        alone = layer(model.config, rows, context)
        peer = {name: float(f"{ms:.3g}") for name, ms in alone.items()}
        ratio = alone["exact"] / alone["packed 4"]
        table.append(row(f"speed of one layer over the fused exact one, {where}", ratio, "ratio", peer=peer))
    for name in middle:
        if name != RECORDED:
            target = 2.0 if name == "quanto 4" else None
            ratio = middle[name] / middle[RECORDED]
            table.append(row(f"decode speed at 4 bits, recorded, over {name}, {where}", ratio, "ratio", target, told))
        if name not in ("packed 4", RECORDED, EXACT_RECORDED):
            ratio = middle[name] / middle["packed 4"]
            table.append(row(f"decode speed at 4 bits over {name}, {where}", ratio, "ratio", None, told))
    if EXACT_RECORDED in middle:
        ratio = middle["exact"] / middle[EXACT_RECORDED]
        table.append(row(f"decode speed, exact and recorded, over exact, {where}", ratio, "ratio", None, told))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="of kernels; of recorded steps; speed")
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--contexts", type=int, nargs="+", default=[4000, 16000])
    parser.add_argument("--steps", type=int, default=64)
    chosen = parser.parse_args()
    if "agreement" in chosen.parts:
        write("kv_cache_gpu_agreement", agreement())
    if "recorded" in chosen.parts:
        write("kv_cache_gpu_recorded", recorded_agreement())
    table: list[Mapping[str, object]] = []
    for shape in chosen.shapes if "speed" in chosen.parts else []:
        model = model_of(shape)
        for rows in chosen.rows:
            for context in chosen.contexts:
                table += measured(model, shape, rows, context, chosen.steps)
                torch.cuda.empty_cache()
                write("kv_cache_gpu_speed", table)


if __name__ == "__main__":
    main()
