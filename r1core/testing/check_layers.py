"""Checks of extra layers: shape, finite and differentiable, blind to padding and to other tokens, nothing at gate zero.

B = rows, T = tokens, S = slots, V = the kind's width, D = hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from r1core import api

if TYPE_CHECKING:
    import torch

B, T, S = 2, 7, 3


def base_config() -> Any:
    """The Hugging Face config of the tiny model, as `extra_layer` hooks are given it."""
    from r1core.testing.tiny import tiny_model

    return tiny_model().config


def layers(plugin: str, specs: Sequence[api.LayerSpec], kinds: Mapping[str, api.SpanKind]) -> Iterator[str]:
    """Failures of a plugin's layers; `kinds` are the span kinds that the same plugin registers."""
    import torch

    from r1core.model.layers import GatedLayer, site_module
    from r1core.testing.tiny import HIDDEN, tiny_model

    for spec in specs:
        unknown = [kind for kind in spec.kinds if kind.startswith(f"{plugin}/") and kind not in kinds]
        if unknown:
            yield f"{spec.name}: reads span kinds that the plugin does not register: {', '.join(unknown)}"
            continue
        site_module(tiny_model(), spec.site)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layer = GatedLayer(spec, HIDDEN).eval()
            hidden = torch.randn(B, T, HIDDEN)
            features = {name: _features(kinds[name].width if name in kinds else 1) for name in spec.kinds}
        if not torch.equal(layer(hidden, features), hidden):
            yield f"{spec.name}: it changes the hidden state at gate zero (is its output finite?)"
        yield from _added(spec.name, layer.inner, hidden, features)


def _added(name: str, module: Any, hidden: torch.Tensor, features: Mapping[str, api.SlotFeatures]) -> Iterator[str]:
    import torch

    added = module(hidden, features)
    if not torch.isfinite(added).all():
        yield f"{name}: its output is not finite"
    if not torch.equal(added, module(hidden, features)):
        yield f"{name}: two passes over equal input differ in eval mode"
    empty = {k: replace(f, mask=torch.zeros_like(f.mask)) for k, f in features.items()}
    if not torch.isfinite(module(hidden, empty)).all():
        yield f"{name}: its output is not finite where no span is present"
    noisy = {k: replace(f, values=torch.where(f.mask[..., None], f.values, 9.0)) for k, f in features.items()}
    if not torch.equal(module(hidden, noisy), added):
        yield f"{name}: values of padded slots change its output"
    other = hidden.clone()
    other[:, -1] += 1.0
    if not torch.allclose(module(other, features)[:, :-1], added[:, :-1], atol=1e-6):
        yield f"{name}: what it adds at a token depends on another token's hidden state"
    trainable = [p for p in module.parameters() if p.requires_grad]
    if trainable:
        if added.requires_grad:
            added.square().sum().backward()
        if not any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in trainable):
            yield f"{name}: no parameter receives a gradient, so it could never learn"


def _features(width: int) -> api.SlotFeatures:
    """Slots over tokens 0 to 3; each row's last slot is padding. Values are small whole numbers, valid as ids too."""
    import torch

    start = torch.tensor([[0, 2, 0], [1, 3, 0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.ones(B, S, max(width, 1)) * mask[..., None]
    return api.SlotFeatures(start=start, end=(start + 1) * mask, values=values, mask=mask)
