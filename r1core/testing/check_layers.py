"""Checks of extra layers: shape, finite and differentiable, blind to padding and to other tokens, nothing at gate zero.

An `output` must be the same for the same row, whatever rows were asked about before, and must do with one token and
without a span.

B = rows, T = tokens, S = slots, V = the kind's width, D = hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from r1core import api

if TYPE_CHECKING:
    import torch

    from r1core.model.layers import GatedLayer

B, T, S = 2, 7, 3
PROBED = 2
"""The token whose slot is taken away to see whether other tokens notice."""


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
        if spec.output is not None:
            yield from _output(layer, hidden, features)


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
    fewer = {k: replace(f, mask=f.mask & (f.start != PROBED)) for k, f in features.items()}
    elsewhere = torch.arange(T) != PROBED
    if not torch.allclose(module(hidden, fewer)[:, elsewhere], added[:, elsewhere], atol=1e-6):
        yield f"{name}: what it adds at a token depends on a span over other tokens"
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


def _output(layer: GatedLayer, hidden: torch.Tensor, features: Mapping[str, api.SlotFeatures]) -> Iterator[str]:
    """Failures of what a layer says of each of two rows, asked in turn."""
    import torch

    from r1core.model.layers import Row

    def ask(index: int, length: int = T, *, spans: bool = True) -> object:
        one = slice(index, index + 1)
        own = {
            kind: api.SlotFeatures(f.start[one], f.end[one], f.values[one], f.mask[one] & spans)
            for kind, f in features.items()
        }
        return layer.output(hidden[one], Row(torch.arange(length), own))

    name = layer.spec.name
    with torch.no_grad():
        before = {key: value.clone() for key, value in layer.state_dict().items()}
        first = ask(0)
        ask(1)
        if not _same(first, ask(0)):
            yield f"{name}: two outputs of one row differ, or depend on the rows that were asked about in between"
        ask(0, spans=False)
        ask(0, 1, spans=False)
        if not _same(before, dict(layer.state_dict())):
            yield f"{name}: giving an output changes its weights"


def _same(one: Any, other: Any) -> bool:
    """Equality that looks into tensors, arrays, dataclasses, mappings and sequences."""
    import torch

    if type(one) is not type(other):
        return False

    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if is_dataclass(one):
        return all(_same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(np.all(one == other))


def _features(width: int) -> api.SlotFeatures:
    """Slots over tokens 0 to 3; each row's last slot is padding. Values are small whole numbers, valid as ids too."""
    import torch

    start = torch.tensor([[0, 2, 0], [1, 3, 0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.ones(B, S, max(width, 1)) * mask[..., None]
    return api.SlotFeatures(start=start, end=(start + 1) * mask, values=values, mask=mask)
