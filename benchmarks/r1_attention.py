"""One attention layer over a long context on a GPU: window and global nodes beside the window alone and full attention.

Run: python benchmarks/r1_attention.py [--tokens 204800] [--rounds 5]
32 heads over 8 key heads, 128 wide, window 4096, a node every 256. "Window alone" is the same kernel without nodes, and
beside it the window kernel of FlashAttention 2 in torch; full causal attention is torch's flash kernel. First,
output and gradients are compared with a plain mask in fp32 on 6,000 tokens. They take turns; figures are medians.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from record import write
from torch.nn import functional
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention

from r1core.model.r1.attention import R1Attention
from r1core.model.r1.config import R1Config
from r1core.model.r1.flex import in_front, over_blocks
from r1core.model.r1.reach import Reach, reach

HEADS, GROUPS, WIDE, WINDOW, EVERY = 32, 8, 128, 4096, 256
SCALE = WIDE**-0.5
Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def seeing(tokens: int, window: int, every: int | None) -> Reach:
    """One sequence of so many tokens."""
    device = torch.device("cuda")
    found, _ = reach(None, None, shape=(1, tokens), device=device, kept=None, window=window, every=every)
    return found


def drawn(tokens: int, heads: int = HEADS, groups: int = GROUPS) -> tuple[Tensors, torch.Tensor]:
    """Queries, keys and values, and the gradient of what comes out."""

    def some(number: int) -> torch.Tensor:
        return torch.randn(1, number, tokens, WIDE, device="cuda", dtype=torch.bfloat16)

    return (some(heads).requires_grad_(), some(groups).requires_grad_(), some(groups).requires_grad_()), some(heads)


def seen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, found: Reach) -> torch.Tensor:
    """R1's attention, the gathering of nodes included."""
    return over_blocks(query, in_front(key, found), in_front(value, found), found, SCALE)


def error() -> float:
    """Greatest relative error of output and gradients on a shorter text with a shorter window, against fp32."""
    found = seeing(6000, 512, 64)
    given, slope = drawn(6000, 4, 2)
    wide = [part.detach().float().requires_grad_() for part in given]
    out = seen(*given, found)
    right = functional.scaled_dot_product_attention(*wide, attn_mask=found.mask, scale=SCALE, enable_gqa=True)
    ours = (out, *torch.autograd.grad(out, given, slope))
    theirs = (right, *torch.autograd.grad(right, wide, slope.float()))
    return max(
        float((a.detach().float() - b.detach()).norm() / b.detach().norm()) for a, b in zip(ours, theirs, strict=True)
    )


def window_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """FlashAttention 2 with a window, forward only."""
    q, k, v = (part.transpose(1, 2) for part in (query, key, value))
    length = query.shape[2]
    out = torch.ops.aten._flash_attention_forward(
        q, k, v, None, None, length, length, 0.0, True, False, scale=SCALE, window_size_left=WINDOW - 1,
        window_size_right=0,
    )[0]  # fmt: skip
    return out.transpose(1, 2)  # type: ignore[no-any-return]


def spent(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of a call, and GiB at its height."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end), torch.cuda.max_memory_allocated() / 2**30


@torch.no_grad()
def layer_memory(tokens: int) -> tuple[float, float]:
    """GiB at the height of a whole layer's forward pass, projections included: R1's, and the library's Llama's."""
    hidden = torch.randn(1, tokens, HEADS * WIDE, device="cuda", dtype=torch.bfloat16)
    angles = torch.rand(1, tokens, WIDE, device="cuda", dtype=torch.bfloat16)
    config = R1Config(hidden_size=HEADS * WIDE, num_attention_heads=HEADS, num_key_value_heads=GROUPS,
                      sliding_window=WINDOW, global_every=EVERY, num_hidden_layers=1)  # fmt: skip
    library = LlamaConfig(hidden_size=HEADS * WIDE, num_attention_heads=HEADS, num_key_value_heads=GROUPS)
    library._attn_implementation = config._attn_implementation = "sdpa"
    found = seeing(tokens, WINDOW, EVERY)
    ours, theirs = (kind(one, 0).to("cuda", torch.bfloat16) for kind, one in
                    ((R1Attention, config), (LlamaAttention, library)))  # fmt: skip

    def height(call: Callable[[], object]) -> float:
        call()
        return spent(call)[1]

    return (
        height(lambda: ours(hidden, (angles, angles), found, None, None)),
        height(lambda: theirs(hidden, position_embeddings=(angles, angles), attention_mask=None)),
    )


def measured(tokens: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds and GiB of each way, forward, and forward with backward."""
    given, slope = drawn(tokens)
    nodes, alone = seeing(tokens, WINDOW, EVERY), seeing(tokens, WINDOW, None)
    forwards = {
        "nodes": lambda: seen(*given, nodes),
        "window": lambda: seen(*given, alone),
        "full": lambda: functional.scaled_dot_product_attention(*given, is_causal=True, scale=SCALE, enable_gqa=True),
    }

    def quiet(name: str) -> None:
        with torch.no_grad():
            forwards[name]()

    def both(name: str) -> None:
        torch.autograd.grad(forwards[name](), given, slope)

    times: dict[str, list[tuple[float, float]]] = {}
    for turn in range(rounds + 1):
        for name in forwards:
            if name == "full" and turn > 2:
                continue  # it takes seconds, and varies little
            for kind, call in (("forward", quiet), ("forward + backward", both)):
                times.setdefault(f"{name} {kind}", []).append(spent(lambda call=call, name=name: call(name)))  # type: ignore[misc]
        with torch.no_grad():
            times.setdefault("window FlashAttention 2", []).append(spent(lambda: window_kernel(*given)))
    medians = {name: [statistics.median(side) for side in zip(*each[1:], strict=True)] for name, each in times.items()}
    return {name: (each[0], each[1]) for name, each in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=204_800)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    wrong = error()
    assert wrong < 2e-2, wrong
    found = measured(chosen.tokens, chosen.rounds)
    report(chosen.tokens, wrong, layer_memory(chosen.tokens), found)


def report(tokens: int, wrong: float, heights: tuple[float, float], found: dict[str, tuple[float, float]]) -> None:
    """Write ratios, times and memory."""
    where = torch.cuda.get_device_name()
    table: list[dict[str, object]] = []

    def add(figure: str, value: float, unit: str, target: float | None = None, peer: object = None) -> None:
        met = None if target is None else value <= target
        table.append({"figure": figure, "value": round(value, 4), "unit": unit, "target": target, "met": met,
                      "peer": peer, "machine": where})  # fmt: skip

    add("relative error against a mask in fp32, 6,000 tokens, output and gradients", wrong, "", 2e-2)
    for kind, bar in (("forward", 0.06), ("forward + backward", 0.065)):
        ours, window, full = (found[f"{name} {kind}"] for name in ("nodes", "window", "full"))
        label = f"one layer, {tokens} tokens, {kind}"
        add(label, ours[0], "ms", None, f"window alone {window[0]:.1f}, full causal {full[0]:.0f} ms")
        add(f"{label}, over the window alone", ours[0] / window[0], "x", 1.15)
        add(f"{label}, over full causal flash", ours[0] / full[0], "x", bar)
        peer = f"{full[1]:.1f} GiB"
        add(
            f"{label}, peak memory over full causal flash",
            ours[1] / full[1],
            "x",
            1.0 if "back" in kind else None,
            peer,
        )
    layer = f"a whole layer with projections, {tokens} tokens, forward, peak memory over the library's with full flash"
    add(layer, heights[0] / heights[1], "x", 1.0, f"{heights[1]:.1f} GiB")
    add("FlashAttention 2 with a window, forward", found["window FlashAttention 2"][0], "ms")
    write("r1_attention", table)


if __name__ == "__main__":
    main()
