"""LoRA on stacked experts, computed in its factors: PEFT's wrapper of a stack, with another forward.

PEFT adds the update to the whole stack in every pass, whatever experts the tokens use. Here the rows of expert e go
through `(x A_e^T) B_e^T` beside the frozen product, so the cost follows the tokens; what goes into A can be dropped
out, and the rows of a batch can have adapters of their own (PEFT's `adapter_names`). Weights, names and layout are
PEFT's, and so is merging.

E = experts, r = rank, N = tokens, K = experts of a token, P = adapters of a batch. Covered are experts that
`r1core.model.r1.experts` computes. Not covered, and left to PEFT's forward: several adapters at once, one stack without
the other.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import layer
from torch import distributed, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from r1core.api import R1Error, UserError
from r1core.model.r1.experts import IMPLEMENTATION, experts_forward, refuse
from r1core.model.r1.routed import Learnt, LowRank, Pair
from r1core.model.strategy import EXPERTS

STACKS = ("gate_up_proj", "down_proj")
"""The two stacks of the usual form, in the order in which PEFT wraps them."""
HALVES = ("lora_A", "lora_B")
NOBODY = "__base__"
"""How PEFT calls no adapter among `adapter_names`."""


class ParamWrapper(layer.ParamWrapper):
    """Wraps one stack; the outer of two computes for both. PEFT knows its wrappers by this name."""

    _laid: _Laid | None = None

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: LoraConfig, **kwargs: Any) -> None:
        super().__init__(base_layer, adapter_name, config=_without_dropout(config), **kwargs)
        self.lora_dropout[adapter_name] = nn.Dropout(config.lora_dropout)

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int, config: LoraConfig, **kwargs: Any) -> None:
        """PEFT's, which refuses dropout only because it adds to the stack."""
        super().update_layer(adapter_name, r, lora_alpha, config=_without_dropout(config), **kwargs)
        self.lora_dropout[adapter_name] = nn.Dropout(config.lora_dropout)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Tokens (N, H), their experts and those experts' weights (N, K) -> (N, H).

        Raises
        ------
        R1Error : where dropout would be passed over, or rows have adapters of their own beside a merged one.
        """
        laid = self._laid
        if laid is not None and not kwargs and not torch.is_grad_enabled() and laid.stands():
            return experts_forward(laid.experts, x, args[0], args[1], laid.low)
        names, inner = kwargs.get("adapter_names"), self.base_layer
        active, apart = (self.active_adapters, False) if names is None else (list(names), True)
        if isinstance(inner, ParamWrapper) and len(args) == 2 and self._factored(inner, active, apart=apart):
            low = self._low(inner, active, len(x))
            return experts_forward(inner.base_layer, x, args[0], args[1], low)
        if apart:
            raise R1Error("rows with adapters of their own need experts without a merged adapter")
        if self.training and not self.disable_adapters and any(_rate(self, name) for name in active):
            raise R1Error("dropout on experts needs one adapter, on both stacks of each block")
        out: torch.Tensor = super().forward(x, *args, **kwargs)
        return out

    def _factored(self, inner: ParamWrapper, names: Sequence[str], *, apart: bool) -> bool:
        """Whether the factors mean the same as PEFT's update of the stacks."""
        if self.merged or inner.merged or self.disable_adapters or inner.disable_adapters:
            return False
        known = all(name == NOBODY or (name in self.lora_A and name in inner.lora_A) for name in names)
        return known and (apart or len(names) == 1)

    def _low(self, inner: ParamWrapper, names: Sequence[str], tokens: int) -> LowRank:
        """The update of these tokens, of one adapter or of each row's own (tokens of a row stand together)."""
        own = list(dict.fromkeys(names))
        first = self.parameter_name == STACKS[0]
        stacks = (self, inner) if first else (inner, self)
        dtype, experts = self.get_param().dtype, self.num_experts
        if own == [NOBODY] or len(own) > 1:
            rows = torch.tensor([own.index(name) for name in names], device=self.get_param().device)
            with torch.no_grad():
                pairs = [_side_by_side(stack, own, dtype) for stack in stacks]
            return LowRank(pairs[0], pairs[1], len(own), rows.repeat_interleave(tokens // len(names)))
        learnt = [stack.learnt(own[0]) for stack in stacks]
        dropout = _rate(self, own[0]) if self.training else 0.0
        low = LowRank.of(learnt[0], learnt[1], experts, dtype, dropout)
        if not torch.is_grad_enabled() and not dropout and not distributed.is_initialized():
            self._laid = _Laid(self, inner, own[0], low)
        return low

    def learnt(self, name: str) -> Learnt:
        """A and B of an adapter."""
        return Learnt(self.factor("lora_A", name), self.factor("lora_B", name), self.scaling[name])

    def factor(self, part: str, name: str) -> nn.Parameter:
        """A or B of an adapter, past `nn.Module`'s lookups: at one token they cost as much as a product."""
        return self._modules[part]._modules[name]._parameters["weight"]  # type: ignore[union-attr, return-value]


def stacks_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The stacked experts of a model, by their names in it."""
    for name, module in model.named_modules():
        owned = dict(module.named_parameters(recurse=False))
        if all(stack in owned and owned[stack].ndim == 3 for stack in STACKS):
            yield name, module


def factored(config: LoraConfig, model: nn.Module) -> None:
    """Have PEFT wrap the stacks of experts that it is asked for in `ParamWrapper`, and compute them with r1core's own.

    Raises
    ------
    UserError : for experts of another form than the usual one.
    """
    kinds = {type(module): ParamWrapper for name, module in stacks_of(model) if _wanted(config, name, module)}
    if kinds:
        if isinstance(model, PreTrainedModel):
            model.set_experts_implementation(IMPLEMENTATION)  # so that the untrained adapter is the base to the bit
        config._register_custom_module((config._custom_modules or {}) | kinds)


def _wanted(config: LoraConfig, name: str, module: nn.Module) -> bool:
    if not any(f"{name}.{stack}".endswith(target) for target in config.target_parameters or () for stack in STACKS):
        return False
    try:
        refuse(module)
    except ValueError as error:
        raise UserError(f"adapter.targets: {name}: {error}", fix=f"leave {EXPERTS!r} out of adapter.targets") from error
    return True


class _Laid:
    """An adapter laid out for answering a token at a time, and what has to be as it was for it to stand.

    It holds the weights, so that no others take their place in memory. A write past autograd's count
    (`weight.data.copy_`) is not noticed; in several processes, where FSDP2 writes so, nothing is kept.
    """

    def __init__(self, outer: ParamWrapper, inner: ParamWrapper, name: str, low: LowRank) -> None:
        self.outer, self.inner, self.name, self.low = outer, inner, name, low
        self.experts: nn.Module = inner.base_layer
        self._weights = [(stack, half, stack.factor(half, name)) for stack in (outer, inner) for half in HALVES]
        self._held = [weight.detach() for *_, weight in self._weights]
        self._versions = [(weight._version, weight.data_ptr()) for *_, weight in self._weights]

    def stands(self) -> bool:
        """Whether the same adapter is active, with the same weights."""
        for stack in (self.outer, self.inner):
            if stack.merged_adapters or stack._disable_adapters:
                return False
            if stack._active_adapter not in (self.name, [self.name]):
                return False
        for (stack, half, weight), version in zip(self._weights, self._versions, strict=True):
            if stack.factor(half, self.name) is not weight or (weight._version, weight.data_ptr()) != version:
                return False
        return self.outer.base_layer is self.inner and not (self.outer.training and _rate(self.outer, self.name))


def _side_by_side(stack: ParamWrapper, names: Sequence[str], dtype: torch.dtype) -> Pair:
    """A and B of each expert for several adapters; a smaller rank, and no adapter, are filled up with zeros."""
    experts = stack.num_experts
    rank = max(stack.r.get(name, 1) for name in names)
    halves = []
    for name in names:
        if name == NOBODY:
            nothing = stack.get_param().new_zeros(())
            sizes = ((experts, rank, stack.in_features), (experts, stack.out_features, rank))
            halves.append(tuple(nothing.expand(*size) for size in sizes))
        else:
            down, up = stack.learnt(name).pair(experts, dtype)
            halves.append((pad(down, (0, 0, 0, rank - down.shape[1])), pad(up, (0, rank - up.shape[2]))))
    return Pair(*(torch.stack(sides, 1).flatten(0, 1) for sides in zip(*halves, strict=True)))


def _rate(stack: ParamWrapper, name: str) -> float:
    """Share of A's inputs that an adapter drops."""
    dropout = dict(stack.lora_dropout.items()).get(name)
    return dropout.p if isinstance(dropout, nn.Dropout) else 0.0


def _without_dropout(config: LoraConfig) -> LoraConfig:
    plain = copy.copy(config)
    plain.lora_dropout = 0.0
    return plain
