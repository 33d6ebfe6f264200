"""Keys and values that are unpacked only where somebody looks at them.

A model hands what its cache returns to an attention function. With one of these, `scaled_dot_product_attention` is
computed from the codes; every other operation gets the unpacked states, so that any model's own attention works.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._pytree import tree_map_only

from r1core.model.kv.held import Held, Still

Role = Literal["keys", "values"]


class StatesView(torch.Tensor):
    """Keys or values (B, H, T, D) of what a layer holds: shape, dtype and device stand, numbers come when asked for."""

    held: Held | Still
    role: Role
    _shape: torch.Size

    @staticmethod
    def __new__(cls, held: Held | Still, role: Role) -> StatesView:
        """A tensor without numbers."""
        newest = held.newest[0 if role == "keys" else 1]
        batch, heads, _, width = newest.shape
        view: StatesView = torch.Tensor._make_wrapper_subclass(
            cls, (batch, heads, held.length, width), dtype=newest.dtype, device=newest.device
        )
        view.held, view.role, view._shape = held, role, torch.Size((batch, heads, held.length, width))
        return view

    def __init__(self, held: Held | Still, role: Role) -> None:
        """All is done in `__new__`, as tensors have it."""

    @property
    def shape(self) -> torch.Size:  # type: ignore[override]  # asked for often, and `__torch_function__` takes its time
        """B, H, T, D."""
        return self._shape

    def unpacked(self) -> torch.Tensor:
        """The numbers."""
        return self.held.read_keys() if self.role == "keys" else self.held.read_values()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"StatesView({self.role}, {tuple(self.shape)})"

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is scaled_dot_product_attention:
            asked = _Attention(*args, **kwargs or {})  # type: ignore[arg-type]
            if asked.from_codes:
                return asked.key.held.attend(asked.query, asked.attn_mask, asked.scale)  # type: ignore[attr-defined]
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's stub leaves out the class and the function
        cls,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        plain = tree_map_only(StatesView, StatesView.unpacked, (tuple(args), dict(kwargs or {})))
        return func(*plain[0], **plain[1])


class _Attention(NamedTuple):
    """The arguments of `scaled_dot_product_attention`."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    attn_mask: torch.Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False

    @property
    def from_codes(self) -> bool:
        """Whether this is what `Held.attend` computes."""
        key, value, mask = self.key, self.value, self.attn_mask
        if not (isinstance(key, StatesView) and isinstance(value, StatesView) and key.held is value.held):
            return False
        if (key.role, value.role) != ("keys", "values") or self.dropout_p or self.is_causal:
            return False
        heads = self.query.shape[1]
        fits = heads == key.shape[1] or (self.enable_gqa and heads % key.shape[1] == 0)
        fits = fits and (not self.query.is_cuda or key.held.fits(self.query))
        return fits and (mask is None or (mask.dim() == 4 and mask.shape[-1] == key.shape[2]))
