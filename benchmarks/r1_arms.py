"""The arms of R1's training benchmarks, all from one dense model: itself, its R1, and a twin of the R1 without routing.

`dense` is trained as it is. `r1` is upcycled: the dense weights learn at the rate that is best for the dense arm, what
is new at a rate of its own, routers at a slower one. `twin` is an R1 with two experts that every token goes to: the
operations of `r1` for a token, and nothing to choose; what `r1` has over it, experts that differ have brought.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from r1_steps import Groups
from torch import nn
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.config import R1Config
from r1core.model.r1.upcycle import upcycled
from r1core.model.upcycling import Upcycling

NEW = (".experts.", ".router.", ".adaptation.")
ROUTER = 1e-4
"""Learning rate of routers: a faster one runs ahead of the biases that keep it even."""
TWIN = {"experts": 2, "groups": 1, "top": 2}


@dataclass(frozen=True)
class Arm:
    """How one model is made and trained.

    Parameters
    ----------
    kind : `dense`, `r1` or `twin`.
    rate : learning rate of the dense weights.
    new : of what an R1 adds; None for the dense arm.
    router : of its routers.
    balance, bias_rate : `router_aux_loss_coef` and `router_bias_rate`.
    """

    kind: str
    rate: float
    new: float | None = None
    balance: float = 0.01
    bias_rate: float = R1Config.router_bias_rate
    router: float = ROUTER

    def __str__(self) -> str:
        if self.new is None:
            return f"{self.kind} at {self.rate:g}"
        routing = (
            f", balance {self.balance:g}, bias {self.bias_rate:g}, router {self.router:g}" if self.kind == "r1" else ""
        )
        return f"{self.kind} at {self.rate:g} and {self.new:g}{routing}"


def source(folder: Path | None, device: torch.device) -> LlamaForCausalLM:
    """The dense model, in bf16 on a GPU and in fp32 on a CPU; without a folder SmolLM2-135M-Instruct of the wheel."""
    if folder is None:
        from r1core_smollm2.source import NAME, SmolLM2Source

        folder = SmolLM2Source().materialise(NAME)
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder, dtype=dtype_on(device))
    model.to(device)  # type: ignore[arg-type]
    return model


def dtype_on(device: torch.device) -> torch.dtype:
    """What weights compute in."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def built(arm: Arm, dense: LlamaForCausalLM, seed: int, device: torch.device) -> tuple[PreTrainedModel, Groups]:
    """A fresh model of an arm on the device, and its groups of learning rates; `dense` stays as it is."""
    with device:
        if arm.kind == "dense":
            model: PreTrainedModel = LlamaForCausalLM(dense.config).to(dense.dtype)
            model.load_state_dict(dense.state_dict())
        else:
            model = upcycled(dense, Upcycling(seed=seed, **(TWIN if arm.kind == "twin" else {})))
            route(model, arm.balance if arm.kind == "r1" else 0.0, arm.bias_rate)
        model.model.rotary_emb = LlamaRotaryEmbedding(model.config)  # a cast of the model rounds its frequencies
    named = list(model.named_parameters())
    old = [weight for name, weight in named if not any(part in name for part in NEW)]
    if arm.new is None:
        return model, [(old, arm.rate)]
    routers = [weight for name, weight in named if ".router." in name]
    fresh = [weight for name, weight in named if any(part in name for part in NEW) and ".router." not in name]
    return model, [(old, arm.rate), (fresh, arm.new), (routers, arm.router)]


def route(model: R1ForCausalLM, balance: float, bias_rate: float) -> None:
    """Set the weight of the balance loss and the step of the biases, as the configuration would."""
    model.config.router_aux_loss_coef, model.config.router_bias_rate = balance, bias_rate
    for block in model.feed_forwards():
        block.balance_weight, block.router.bias_rate = balance, bias_rate


def operations(model: PreTrainedModel) -> int:
    """Multiply-adds of a token with weights in a forward pass; attention over the text, alike in all arms, is apart."""
    total = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            total += module.weight.numel()
        elif name.endswith(".experts"):
            config = model.config
            total += config.num_experts_per_tok * 3 * config.hidden_size * config.moe_intermediate_size
        elif name.endswith(".router"):
            total += sum(weight.numel() for weight in module.parameters())
        elif name.endswith(".adaptation.mix"):
            total += module.weight.numel() * model.config.adaptation_rank
    return total
