"""The packed key/value cache: bytes held, what it changes in the model's predictions, tokens a second.

Run: python benchmarks/kv_cache.py [--parts bytes quality speed r1] [--tokens 2048] [--contexts 1000 2000 4000]
The peers, the library's `QuantizedCache` at 4 bits with quanto (its default) and hqq, are measured in the same process
where they are installed: call it with the interpreter of an environment that has them, made as
benchmarks/peers/requirements-kv.txt says.

SmolLM2-135M-Instruct, one thread, fp32 (which is no slower than bf16 on processors without its instructions).
Bytes: every storage held for bf16 states of the model's shape, over exact bf16 ones, tokens appended one at a time; the
mean of 64 lengths in a row, since the exact tail grows and is packed again. Memory that all layers share to unpack a
tile into stands apart. Quality: windows of the English data set descriptions that come with scikit-learn, fed in pieces
of 16 tokens through each cache, scored behind the first 256. Widths of groups and the numbers of exact tokens were
chosen on another text, the topics of Python's own manual (`--text manual`). Speed: caches filled
with the same random states, then one token at a time by each in turn (A B C C B A), medians of wall time of the whole
model's pass.
R1: bytes of a cache of SmolLM2's shape behind 204,000 tokens, a window of 4,096 and a node every 256; and what packing
changes in the predictions of SmolLM2 upcycled and set to a window of 256 with a node every 64, against R1's own exact
cache, on the same text and scored likewise.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from r1core_smollm2.plugin import SmolLM2Source
from record import write
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel, QuantizedCache
from transformers.cache_utils import Cache

from r1core.model.kv.cache import PackedCache
from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.cache import furnished, kept_positions
from r1core.model.r1.change import Change
from r1core.model.r1.reach import reach
from r1core.model.r1.upcycle import upcycled
from r1core.model.upcycling import Upcycling

BEHIND = 256
"""Tokens at a window's start that are read, not scored: most of what they attend to is exact in any cache."""
PIECE = 16
"""Tokens fed at a time where quality is measured."""
ROUNDS = 8
"""Half as many tokens as are timed by each cache at each context."""
QUALITY = ("packed 4", "packed 5", "quanto 4")
SPEED = ("packed 4", "quanto 4", "hqq 4")
"""Caches that are compared with the exact one where nothing else is asked for."""
R1_TOKENS, R1_MOST = 204_000, 0.03
"""Tokens that R1's cache is measured behind, and the largest share of the bytes of exact bf16 states."""
BYTES = {4: 0.35, 5: 0.39, 6: None}
LOSS = {4: (0.5, 0.005), 5: (None, 0.002), 6: (None, None)}
"""Most by which the perplexity may grow, in percent, and the largest mean divergence, in nats."""


def model_directory() -> Path:
    return SmolLM2Source().materialise("smollm2-135m-instruct")


def text_of(name: str) -> str:
    if name == "manual":
        from pydoc_data.topics import topics

        return "\n".join(topics[key] for key in sorted(topics))
    import sklearn

    files = sorted((Path(sklearn.__file__).parent / "datasets" / "descr").glob("*.rst"))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def caches(model: PreTrainedModel) -> dict[str, Callable[[], Cache]]:
    """An empty cache by name; the exact one first."""
    made: dict[str, Callable[[], Cache]] = {"exact": DynamicCache}
    made |= {f"packed {bits}": lambda bits=bits: PackedCache(bits, model.config) for bits in (4, 5, 6)}
    if importlib.util.find_spec("optimum"):
        made["quanto 4"] = lambda: QuantizedCache("quanto", model.config, nbits=4)
    if importlib.util.find_spec("hqq"):
        made["hqq 4"] = lambda: QuantizedCache("hqq", model.config, nbits=4, axis_key=1, axis_value=1)
    return made


def held_bytes(model: PreTrainedModel, bits: int, context: int) -> tuple[float, float, int]:
    """Bytes held over those of exact bf16 states, mean and most of 64 lengths; working bytes."""
    config = model.config
    shape = (1, config.num_key_value_heads, 1, config.head_dim)
    shares = []
    cache = PackedCache(bits, config)
    step = (torch.randn(*shape, dtype=torch.bfloat16), torch.randn(*shape, dtype=torch.bfloat16))
    for layer in range(config.num_hidden_layers):
        cache.update(step[0].repeat(1, 1, context, 1), step[1].repeat(1, 1, context, 1), layer)
    for length in range(context + 1, context + 65):
        for layer in range(config.num_hidden_layers):
            cache.update(*step, layer)
        exact = length * config.num_hidden_layers * sum(part.nbytes for part in step)
        shares.append(cache.nbytes / exact)
    cache.layers[0].states.held.attend(torch.randn(1, config.num_attention_heads, 1, config.head_dim))
    return statistics.mean(shares), max(shares), cache.working_bytes


@torch.no_grad()
def read(model: PreTrainedModel, windows: torch.Tensor, cache: Cache) -> torch.Tensor:
    """Log-probabilities (windows, tokens, V), fed in pieces; half precision, to fit memory."""
    parts = []
    for piece in windows.split(PIECE, 1):
        logits = model(input_ids=piece, past_key_values=cache, use_cache=True).logits
        parts.append(logits.log_softmax(-1).half())
    return torch.cat(parts, 1)[:, BEHIND:-1]


def quality(model: PreTrainedModel, windows: torch.Tensor, only: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Growth of the perplexity in percent, and mean divergence from the exact cache in nats, by cache."""
    answers = windows[:, BEHIND + 1 :, None]
    exact = read(model, windows, DynamicCache())
    known = float(exact.float().gather(-1, answers).mean())
    told = {}
    for name, made in caches(model).items():
        if name not in only:
            continue
        found = read(model, windows, made())
        growth = math.expm1(known - float(found.float().gather(-1, answers).mean()))
        rows = zip(exact, found, strict=True)
        divergences = [(a.float().exp() * (a.float() - b.float())).sum(-1).mean() for a, b in rows]
        told[name] = (100 * growth, float(torch.stack(divergences).mean()))
        print(f"{name}: perplexity {told[name][0]:+.3f} %, divergence {told[name][1]:.5f} nats", flush=True)
    return told


@torch.no_grad()
def speed(model: PreTrainedModel, context: int, batch: int, only: Sequence[str]) -> dict[str, float]:
    """Median seconds of a pass over one new token a row, by cache; all are filled with the same random states."""
    config = model.config
    made = {n: m() for n, m in caches(model).items() if n == "exact" or n in only}
    for index in range(config.num_hidden_layers):
        states = torch.randn(2, batch, config.num_key_value_heads, context, config.head_dim)
        for cache in made.values():
            cache.update(states[0], states[1], index)
    times: dict[str, list[float]] = {name: [] for name in made}
    token = torch.full((batch, 1), 5)
    for turn in range(2 * ROUNDS):
        for name in list(made) if turn % 2 else list(made)[::-1]:
            start = time.perf_counter()
            model(input_ids=token, past_key_values=made[name], use_cache=True)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[2:]) for name, taken in times.items()}


@torch.no_grad()
def r1_bytes(model: PreTrainedModel, bits: int) -> tuple[float, float]:
    """Bytes held for R1 over those of all exact bf16 states, mean and most of 64 lengths; 0 bits: its exact cache."""
    config, shares = model.config, []
    cache = furnished(PackedCache(bits) if bits else DynamicCache(), config.num_hidden_layers)
    token = torch.randn(2, 1, config.num_key_value_heads, 1, config.head_dim, dtype=torch.bfloat16)
    for length in range(R1_TOKENS, R1_TOKENS + 65):
        new = length - cache.get_seq_length()
        given = {"shape": (1, new), "device": token.device, "kept": kept_positions(cache)}
        seen, _ = reach(None, None, **given, window=4096, every=256)  # type: ignore[arg-type]
        states = token.expand(-1, -1, -1, new, -1)
        for layer in range(config.num_hidden_layers):
            cache.update(states[0], states[1], layer, seen)
        if bits:
            held = cache.nbytes
        else:
            held = sum(part.untyped_storage().nbytes() for one in cache.layers for part in (one.keys, one.values))
        shares.append(held / (length * config.num_hidden_layers * token.nbytes))
    print(f"R1, {bits} bits: {statistics.mean(shares[1:]):.5f} of all bf16 states", flush=True)
    return statistics.mean(shares[1:]), max(shares[1:])


def r1_rows(model: PreTrainedModel, windows: torch.Tensor) -> list[Mapping[str, object]]:
    """Bytes at 204,000 tokens, and quality under a small window."""
    rows = []
    own = r1_bytes(model, 0)[0]
    for bits in BYTES:
        mean, worst = r1_bytes(model, bits)
        peer = {"at most": round(worst, 5), "R1's exact cache": round(own, 5)}
        rows.append(row(f"R1 bytes at {bits} bits over bf16, 204,000 tokens", round(mean, 5), "share", R1_MOST, peer))
    whole = upcycled(model, Upcycling(experts=8, groups=4, width=16))
    made = R1ForCausalLM(Change(window=256, every=64).applied(whole.config)).to(whole.dtype).eval()
    made.load_state_dict(whole.state_dict())
    answers, exact = windows[:, BEHIND + 1 :, None], read(made, windows, DynamicCache())
    known = float(exact.float().gather(-1, answers).mean())
    for bits in (4, 5):
        found = read(made, windows, PackedCache(bits))
        growth = 100 * math.expm1(known - float(found.float().gather(-1, answers).mean()))
        apart = [(a.float().exp() * (a.float() - b.float())).sum(-1).mean() for a, b in zip(exact, found, strict=True)]
        divergence = float(torch.stack(apart).mean())
        most, far = LOSS[bits]
        rows.append(row(f"R1, growth of the perplexity at {bits} bits", round(growth, 3), "%", most))
        rows.append(row(f"R1, divergence at {bits} bits", round(divergence, 5), "nats a token", far))
    return rows


def row(figure: str, value: float, unit: str, most: float | None, peer: object = None) -> Mapping[str, object]:
    met = None if most is None else value <= most
    return {"figure": figure, "value": value, "unit": unit, "target": most, "met": met, "peer": peer}


def bytes_rows(model: PreTrainedModel, contexts: Sequence[int]) -> list[Mapping[str, object]]:
    rows = []
    for bits, most in BYTES.items():
        for context in contexts:
            mean, worst, working = held_bytes(model, bits, context)
            peer = {"at most": round(worst, 4), "working bytes besides": working}
            rows.append(row(f"bytes at {bits} bits over bf16, {context} tokens", round(mean, 4), "share", most, peer))
    return rows


def quality_rows(model: PreTrainedModel, windows: torch.Tensor, only: Sequence[str]) -> list[Mapping[str, object]]:
    told, rows = quality(model, windows, only), []
    peers = {n: {"perplexity, %": round(p, 3), "nats": round(k, 5)} for n, (p, k) in told.items() if "packed" not in n}
    for bits, (most, far) in LOSS.items():
        if f"packed {bits}" in told:
            growth, divergence = told[f"packed {bits}"]
            rows.append(row(f"growth of the perplexity at {bits} bits", round(growth, 3), "%", most, peers or None))
            rows.append(row(f"divergence at {bits} bits", round(divergence, 5), "nats a token", far, peers or None))
    return rows


def speed_rows(
    model: PreTrainedModel, contexts: Sequence[int], batches: Sequence[int], only: Sequence[str]
) -> list[Mapping[str, object]]:
    rows = []
    for batch in batches:
        for context in contexts:
            seconds = speed(model, context, batch, only)
            rates = {name: round(batch / taken, 2) for name, taken in seconds.items()}
            print(f"{context} tokens, {batch} rows: {rates} tokens/s", flush=True)
            where = f"{context} tokens, {batch} row{'s' * (batch > 1)}"
            for name in ("exact", "quanto 4", "hqq 4"):
                if name in rates:
                    least = 2.0 if name == "quanto 4" else None
                    value = round(seconds[name] / seconds["packed 4"], 3)
                    figure = f"decode speed at 4 bits over {name}, {where}"
                    met = None if least is None else value >= least
                    rows.append(
                        {"figure": figure, "value": value, "unit": "ratio", "target": least, "met": met, "peer": rates}
                    )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["bytes", "quality", "speed", "r1"])
    parser.add_argument("--text", choices=["descriptions", "manual"], default="descriptions")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--contexts", type=int, nargs="+", default=[1000, 2000, 4000])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--only", nargs="+", help="caches besides the exact one")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    directory = model_directory()
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    ids = torch.tensor(AutoTokenizer.from_pretrained(directory)(text_of(chosen.text), verbose=False).input_ids)
    print(f"{ids.numel()} tokens of text", flush=True)
    rows: dict[str, list[Mapping[str, object]]] = {}
    apart = (ids.numel() - chosen.tokens) // max(1, chosen.windows - 1)
    windows = torch.stack([ids[at * apart : at * apart + chosen.tokens] for at in range(chosen.windows)])
    if "bytes" in chosen.parts:
        rows["bytes"] = bytes_rows(model, chosen.contexts)
    if "quality" in chosen.parts:
        rows["quality"] = quality_rows(model, windows, chosen.only or QUALITY)
    if "r1" in chosen.parts:
        rows["r1"] = r1_rows(model, windows)
    if "speed" in chosen.parts:
        rows["speed"] = speed_rows(model, chosen.contexts, chosen.batches, chosen.only or SPEED)
    for part, found in rows.items():
        write(f"kv_cache_{part}" if chosen.text == "descriptions" else f"kv_cache_{part}_{chosen.text}", found)


if __name__ == "__main__":
    main()
