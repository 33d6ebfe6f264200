"""The routed experts of R1, and the way they are computed: `r1core` among transformers' expert implementations.

`r1core` takes the stacks of any library model of the usual form (SwiGLU without biases, `gate_up_proj` (E, 2 I, H) and
`down_proj` (E, H, I)), so that `model.set_experts_implementation("r1core")` works on Qwen3-MoE as well. On a GPU it is
grouped matrix products between fused kernels, on a CPU one product per expert; anything else is refused by name.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers.activations import ACT2FN
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, use_experts_implementation

from r1core.model.r1.config import R1Config
from r1core.model.r1.grouped_cpu import FEW, differentiated, experts_cpu
from r1core.model.r1.routed import LowRank

IMPLEMENTATION = "r1core"
"""Its name in `experts_implementation`."""


@use_experts_implementation
class R1Experts(nn.Module):
    """E experts, `down(silu(gate x) * up x)` each, as two stacks.

    `forward` is the plain loop over experts: the reference that the implementations are measured against.
    """

    takes_any_dtype = True  # computes in that of the tokens

    def __init__(self, config: R1Config) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        self.act_fn = ACT2FN[config.hidden_act]
        wide, width = config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = nn.Parameter(torch.empty(config.num_experts, 2 * wide, width))
        self.down_proj = nn.Parameter(torch.empty(config.num_experts, width, wide))

    def forward(self, hidden: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Tokens (N, H), their experts and those experts' weights (N, K) -> (N, H)."""
        out = torch.zeros_like(hidden)
        for expert in chosen.unique().tolist():
            token, place = torch.where(chosen == expert)
            first, second = (stack[expert].to(hidden.dtype) for stack in (self.gate_up_proj, self.down_proj))
            gate, up = functional.linear(hidden[token], first).chunk(2, dim=-1)
            said = functional.linear(self.act_fn(gate) * up, second)
            out.index_add_(0, token, said * weights[token, place, None])
        return out


def experts_forward(
    module: nn.Module,
    hidden: torch.Tensor,
    chosen: torch.Tensor,
    weights: torch.Tensor,
    low: LowRank | None = None,
) -> torch.Tensor:
    """The `r1core` implementation of a stack of experts; parameters as `R1Experts.forward` has them.

    Parameters
    ----------
    low : an adapter on both stacks.

    Raises
    ------
    ValueError : for experts of another form.
    """
    if not getattr(module, "_r1core_computes", False):
        refuse(module)
        module._r1core_computes = True  # type: ignore[assignment]  # asked once: at one token, asking costs as much as a product
    gate_up, down = module.gate_up_proj, module.down_proj
    assert isinstance(gate_up, torch.Tensor)
    assert isinstance(down, torch.Tensor)
    if gate_up.dtype == torch.float32 != hidden.dtype:  # trained whole
        if chosen.numel() <= FEW and not differentiated(hidden, weights, gate_up, down):
            return experts_cpu(hidden.to(down.dtype), chosen, weights.to(down.dtype), gate_up, down).to(hidden.dtype)
        gate_up, down = gate_up.to(hidden.dtype), down.to(hidden.dtype)
    if hidden.device.type == "cuda":
        from r1core.model.r1.grouped_cuda import experts_cuda  # Triton is there where a GPU is

        return experts_cuda(hidden, chosen, weights.to(hidden.dtype), gate_up, down, low)
    return experts_cpu(hidden, chosen, weights.to(hidden.dtype), gate_up, down, low)


def refuse(module: nn.Module) -> None:
    """Refuse experts of another form.

    Raises
    ------
    ValueError : naming what they have that is not computed here.
    """
    active = getattr(module, "act_fn", None)
    found = [
        *(["biases"] if getattr(module, "has_bias", False) else []),
        *([] if getattr(module, "has_gate", True) else ["experts without a gate"]),
        *(["transposed stacks"] if getattr(module, "is_transposed", False) else []),
        *([] if getattr(module, "is_concatenated", True) else ["interleaved gates"]),
        *(["a norm behind each expert"] if getattr(module, "has_post_expert_norm", False) else []),
        *([] if isinstance(active, nn.SiLU | type(ACT2FN["silu"])) else [f"the activation {active}"]),
    ]
    if found:
        raise ValueError(
            f'{type(module).__name__} has {", ".join(found)}, which experts_implementation = "{IMPLEMENTATION}"'
            ' does not compute: use "grouped_mm"'
        )


if IMPLEMENTATION not in ALL_EXPERTS_FUNCTIONS:
    ALL_EXPERTS_FUNCTIONS[IMPLEMENTATION] = experts_forward
