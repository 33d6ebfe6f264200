"""LoRA on stacked experts over its frozen base: r1core's factors beside PEFT's own wrapper, on the same weights.

Run: python benchmarks/r1_expert_lora.py [--device cuda] [--rounds 20]
The module is transformers' own stack of experts (Qwen3-MoE's, 128 of which a token uses 2); rank 16 on both stacks.
Output and gradients are compared first, with PEFT's wrapper in fp32 (A and B drawn at random). Then: one token forward,
and forward + backward with gradients of tokens, weights and adapter, each over the same without an adapter; on a GPU
the latter twice: passes one after another as the host launches them, and what the GPU takes for one. Both ways compute
the base with r1core's experts; PEFT's wrapper is also timed over the library's grouped products. Everything takes turns
within a round; figures are ratios of medians.
"""

from __future__ import annotations

import argparse

import torch
from peft import LoraConfig, get_peft_model
from r1_experts import EXPERTS, TOLERANCE, Step, inputs, row, stack, timed
from record import machine, write
from torch import nn

from r1core.model.expert_lora import STACKS, factored
from r1core.model.r1.experts import IMPLEMENTATION

RANK = 16
LIBRARY = "grouped_mm"
SHAPES = {"cuda": (16384, 1024, 512, torch.bfloat16), "cpu": (2048, 256, 256, torch.float32)}
"""Tokens, widths of model and expert, dtype."""
IN_A_ROW = 8
"""Passes that are timed as one, so that a queue that another module has left counts little."""
AHEAD = 30_000_000
"""Clock cycles of a GPU, about 17 ms: longer than a host takes to launch a pass."""


class Holder(nn.Module):
    """What PEFT is given: a module that holds the stack."""

    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        """As the experts."""
        out: torch.Tensor = self.experts(*given)
        return out


def adapted(experts: nn.Module, ours: bool) -> nn.Module:
    """The stack with LoRA on both weights, those of the adapter fp32 and drawn at random."""
    stacks = [f"experts.{stack}" for stack in STACKS]
    config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=[], target_parameters=stacks)
    holder = Holder(experts)
    if ours:
        factored(config, holder)
    made = get_peft_model(holder, config).base_model.model.experts
    draw = torch.Generator().manual_seed(7)
    for name, weight in made.named_parameters():
        if "lora_" in name:
            values = torch.randn(weight.shape, generator=draw) * (0.1 if "lora_B" in name else weight.shape[1] ** -0.5)
            weight.data = values.to(weight.device)
    return made


def trained(module: nn.Module) -> list[nn.Parameter]:
    """The adapter's weights."""
    return [weight for weight in module.parameters() if weight.requires_grad]


def through(module: nn.Module, given: list[torch.Tensor]) -> Step:
    """A pass forward and backward."""
    hidden, chosen, weights, slope = given
    wanted = [hidden, weights, *trained(module)]

    def step() -> tuple[torch.Tensor, ...]:
        out = module(hidden, chosen, weights)
        return (out.detach(), *torch.autograd.grad(out, wanted, slope))

    return step


def repeated(module: nn.Module, given: list[torch.Tensor], times: int) -> Step:
    """One token forward, so many times."""
    one = [part[:1].detach() for part in given[:3]]

    @torch.no_grad()
    def step() -> None:
        for _ in range(times):
            module(*one)

    return step


def in_a_row(step: Step) -> Step:
    """Some passes, one after another."""

    def steps() -> None:
        for _ in range(IN_A_ROW):
            step()

    return steps


def errors(width: int, wide: int, dtype: torch.dtype, device: str) -> float:
    """Greatest relative error of output and gradients against PEFT's wrapper in fp32."""
    base, exact = stack(width, wide, dtype, device), stack(width, wide, torch.float32, device)
    exact.load_state_dict(base.state_dict())
    given = inputs(1024, width, dtype, device)
    wide_given = [each.detach().float() if each.is_floating_point() else each for each in given]
    for at in (0, 2):
        wide_given[at].requires_grad_()
    base.config._experts_implementation, exact.config._experts_implementation = IMPLEMENTATION, "eager"
    found, right = through(adapted(base, True), given)(), through(adapted(exact, False), wide_given)()
    pairs = zip(found, right, strict=True)  # type: ignore[call-overload]
    return max(float((a.float() - b).norm() / b.norm()) for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    device = asked.device
    tokens, width, wide, dtype = SHAPES[device]
    where = torch.cuda.get_device_name() if device == "cuda" else machine()
    wrong = errors(width, wide, dtype, device)
    assert wrong <= 2 * TOLERANCE[dtype], wrong
    frozen, library = (stack(width, wide, dtype, device).requires_grad_(False) for _ in range(2))
    library.load_state_dict(frozen.state_dict())
    frozen.config._experts_implementation, library.config._experts_implementation = IMPLEMENTATION, LIBRARY
    given = inputs(tokens, width, dtype, device)
    ours, peft = adapted(frozen, True), adapted(frozen, False)
    theirs = adapted(library, False)
    modules = {"base": frozen, "ours": ours, "peft": peft, "library": library, "peft over the library": theirs}
    kind = str(dtype).removeprefix("torch.")
    figure = f"expert LoRA: output and gradients against PEFT's in fp32, {kind}"
    table = [row(figure, 1e6 * wrong, "1e-6, relative", 2e6 * TOLERANCE[dtype], None, where)]
    times = 20 if device == "cpu" else 100
    one = {name: repeated(module, given, times) for name, module in modules.items()}
    whole = {name: through(module, given) for name, module in modules.items()}
    passes = f"{tokens} tokens, H={width} I={wide}, forward + backward"
    figures = [(f"one token forward, H={width} I={wide}", 1.3, one, times, 0)]
    if device == "cpu":
        figures.append((passes, 1.5, whole, 1, 0))
    else:
        rows = {name: in_a_row(step) for name, step in whole.items()}
        figures += [(passes, 1.5, rows, IN_A_ROW, 0), (f"{passes}, GPU alone", 1.5, whole, 1, AHEAD)]
    for figure, target, steps, per, ahead in figures:
        rounds = asked.rounds if per == 1 else max(5, asked.rounds // 4)
        each = {name: value / per for name, value in timed(steps, rounds, device, ahead).items()}
        peer = (
            f"PEFT {each['peft'] / each['base']:.1f}x, over the library's products"
            f" {each['peft over the library'] / each['library']:.1f}x"
        )
        name = f"expert LoRA r={RANK} on {EXPERTS} experts over the frozen base, {kind}: {figure}"
        table.append(row(name, each["ours"] / each["base"], "x", target, peer, where))
        table.append(row(f"{name}, the base", each["base"], "ms", None, f"library {each['library']:.3f} ms", where))
    write(f"r1_expert_lora_{device}", table)


if __name__ == "__main__":
    main()
