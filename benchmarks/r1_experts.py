"""Routed experts, forward and backward: R1's implementation beside the library's, on the same module and weights.

Run: python benchmarks/r1_experts.py [--device cuda] [--rounds 20]
The module is transformers' own stack of experts (Qwen3-MoE's); only `experts_implementation` changes: `r1core`,
`grouped_mm` and, on a GPU, `grouped_mm` under torch.compile. Gradients are compared first, against the loop in fp32.
Implementations take turns within a round; figures are medians over rounds. On a GPU the host runs ahead, as it does in
training; on a CPU one thread computes and CPU seconds count. Routing is at random, top-2 of 128.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from record import machine, write
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from r1core.model.r1 import experts

EXPERTS, TOP = 128, 2
Step = Callable[[], object]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1.5e-2}
"""Relative error (2-norm) that rounding explains."""
SHAPES = ((16384, 1024, 512, 2.2, None), (8192, 2048, 768, None, 25.0), (32768, 2048, 768, None, 45.0))
"""Tokens, widths of model and expert, most milliseconds, least share of the dense rate in percent."""
DENSE = 8192
"""Side of the square product whose rate counts as dense."""


def stack(width: int, wide: int, dtype: torch.dtype, device: str) -> Qwen3MoeExperts:
    """The library's experts with random weights."""
    config = Qwen3MoeConfig(hidden_size=width, moe_intermediate_size=wide, num_experts=EXPERTS, num_experts_per_tok=TOP)
    made = Qwen3MoeExperts(config).to(device, dtype)
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    return made


def inputs(tokens: int, width: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    """Tokens, choice, weights, and the gradient of what comes out."""
    weights, chosen = torch.randn(tokens, EXPERTS, device=device).softmax(-1).topk(TOP)
    weights = (weights / weights.sum(-1, keepdim=True)).to(dtype)
    hidden = torch.randn(tokens, width, device=device, dtype=dtype)
    return [hidden.requires_grad_(), chosen, weights.requires_grad_(), torch.randn_like(hidden)]


def stepped(
    module: Qwen3MoeExperts, given: list[torch.Tensor], name: str, forward: Callable[..., torch.Tensor]
) -> Step:
    """A forward and backward pass under one implementation."""
    hidden, chosen, weights, slope = given
    wanted = [hidden, weights, *module.parameters()]

    def step() -> tuple[torch.Tensor, ...]:
        module.config._experts_implementation = name
        out = forward(hidden, chosen, weights)
        return (out.detach(), *torch.autograd.grad(out, wanted, slope))

    return step


def errors(module: Qwen3MoeExperts, given: list[torch.Tensor], name: str) -> float:
    """Greatest relative error of output and gradients against the loop in fp32, of the same numbers."""
    exact = copy.deepcopy(module).float()
    hidden, chosen, weights, slope = given
    wide = [hidden.detach().float().requires_grad_(), chosen, weights.detach().float().requires_grad_(), slope.float()]
    right = stepped(exact, wide, "eager", exact)()
    found = stepped(module, given, name, module)()
    pairs = zip(found, right, strict=True)  # type: ignore[call-overload]
    return max(float((a.float() - b).norm() / b.norm()) for a, b in pairs)


def timed(steps: Mapping[str, Step], rounds: int, device: str, ahead: int = 0) -> dict[str, float]:
    """Median milliseconds of each, in turns.

    Parameters
    ----------
    ahead : clock cycles that a GPU is kept busy before the timed pass, so that all of it is launched when it begins.
    """
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for step in (*steps.values(), *steps.values()):
        step()
    if device == "cpu":
        for _ in range(rounds):
            for name, step in steps.items():
                start = time.process_time()
                step()
                spent[name].append(1000 * (time.process_time() - start))
        return {name: statistics.median(each) for name, each in spent.items()}
    marks: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []
    for _ in range(rounds):
        for name, step in steps.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            step()  # the host is ahead by one pass when the timed one starts
            if ahead:
                torch.cuda._sleep(ahead)
            begin.record()
            step()
            end.record()
            marks.append((name, begin, end))
    torch.cuda.synchronize()
    for name, begin, end in marks:
        spent[name].append(begin.elapsed_time(end))
    return {name: statistics.median(each) for name, each in spent.items()}


def row(
    figure: str, value: float, unit: str, target: float | None, peer: object, where: str, least: bool = False
) -> dict[str, object]:
    """One row of the table; the target is the least value where `least` says so, else the greatest."""
    met = None if target is None else bool(value >= target if least else value <= target)
    said = {"figure": figure, "value": round(value, 4), "unit": unit, "target": target}
    return {**said, "met": met, "peer": peer, "machine": where}


def on_gpu(rounds: int) -> list[dict[str, object]]:
    where, table = torch.cuda.get_device_name(), []
    square = torch.randn(DENSE, DENSE, device="cuda", dtype=torch.bfloat16)
    dense = 2 * DENSE**3 / timed({"dense": lambda: square @ square}, rounds, "cuda")["dense"] / 1e9
    table.append(row(f"dense bf16 product of {DENSE}", dense, "TFLOP/s", None, None, where))
    for tokens, width, wide, target, share in SHAPES:
        module, given = stack(width, wide, torch.bfloat16, "cuda"), inputs(tokens, width, torch.bfloat16, "cuda")
        wrong = errors(module, inputs(2048, width, torch.bfloat16, "cuda"), experts.IMPLEMENTATION)
        assert wrong <= TOLERANCE[torch.bfloat16], wrong
        module.config._experts_implementation = "grouped_mm"
        compiled = torch.compile(module)
        each = timed({
            "ours": stepped(module, given, experts.IMPLEMENTATION, module),
            "library": stepped(module, given, "grouped_mm", module),
            "compiled": stepped(module, given, "grouped_mm", compiled),
        }, rounds, "cuda")  # fmt: skip
        peer = f"library {each['library']:.2f} ms, compiled {each['compiled']:.2f} ms"
        name = f"experts H={width} I={wide} E={EXPERTS} top-{TOP}, {tokens} tokens, bf16, forward + backward"
        table.append(row(name, each["ours"], "ms", target, peer, where))
        rate = (
            18 * tokens * TOP * width * wide / each["ours"] / 1e9
        )  # three products, each once forward, twice backward
        table.append(row(f"{name}: share of the dense rate", 100 * rate / dense, "%", share, peer, where, least=True))
    return table


def on_cpu(rounds: int) -> list[dict[str, object]]:
    torch.set_num_threads(1)
    where, table = machine(), []
    for dtype, target in ((torch.float32, 129.0), (torch.bfloat16, 69.0)):
        module, given = stack(256, 256, dtype, "cpu"), inputs(2048, 256, dtype, "cpu")
        wrong = errors(module, inputs(256, 256, dtype, "cpu"), experts.IMPLEMENTATION)
        assert wrong <= TOLERANCE[dtype], wrong
        names = {"ours": experts.IMPLEMENTATION, "library": "grouped_mm"}
        each = timed({n: stepped(module, given, name, module) for n, name in names.items()}, rounds, "cpu")
        kind = str(dtype).removeprefix("torch.")
        figure = f"experts H=256 I=256 E={EXPERTS} top-{TOP}, 2048 tokens, {kind}, one core, forward + backward"
        table.append(row(figure, each["ours"], "CPU ms", target, f"library {each['library']:.1f} ms", where))
        if dtype == torch.float32:
            one = [part[:1].detach() for part in given[:3]]

            def decode(name: str, module: Qwen3MoeExperts = module, one: list[torch.Tensor] = one) -> Step:
                @torch.no_grad()
                def step() -> None:
                    module.config._experts_implementation = name
                    for _ in range(100):
                        module(*one)

                return step

            each = timed({n: decode(name) for n, name in names.items()}, rounds, "cpu")
            peer = f"library {each['library'] / 100:.3f} ms"
            table.append(row(f"the same, one token forward, {kind}", each["ours"] / 100, "CPU ms", 0.08, peer, where))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    torch.manual_seed(0)
    table = on_gpu(chosen.rounds) if chosen.device == "cuda" else on_cpu(chosen.rounds)
    write(f"r1_experts_{chosen.device}", table)


if __name__ == "__main__":
    main()
