"""Extra layers at named sites, attached by forward hooks, behind a zero-initialised gate.

The gate belongs to the core, so a layer cannot change the base at step 0: `hidden + gate * delta` with `gate = 0`
equals `hidden` to the bit. Layers live outside the base model's tree; PEFT never sees them and the model is never
wrapped.

B = rows, T = tokens, D = hidden size. Layers whose `delta` at a token reads other tokens' hidden states are not
covered: a packed batch holds several rows, and they would see one another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from r1core.api import LayerSpec, PluginError, R1Error, SlotFeatures, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS = "r1core_layers.safetensors"
Features = Mapping[str, SlotFeatures]


class GatedLayer(nn.Module):
    """One plugin's module and the core's gate, `(D,)`, zero at the start."""

    def __init__(self, spec: LayerSpec, hidden_size: int) -> None:
        super().__init__()
        self.spec = spec
        self.inner = spec.factory(hidden_size)
        self.gate = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, hidden: torch.Tensor, features: Features) -> torch.Tensor:
        """Return `hidden + gate * delta`, in the dtype of `hidden`.

        Raises
        ------
        PluginError : when the plugin's module raises, or returns another shape.
        """
        plugin = self.spec.name.partition("/")[0]
        try:
            delta = self.inner(hidden.float(), {kind: features[kind] for kind in self.spec.kinds})
        except R1Error:
            raise
        except Exception as error:
            raise PluginError(plugin, "extra_layer", f"{self.spec.name}: {error}") from error
        if not isinstance(delta, torch.Tensor) or delta.shape != hidden.shape:
            found = f"shape {tuple(delta.shape)}" if isinstance(delta, torch.Tensor) else type(delta).__name__
            expected = tuple(hidden.shape)
            raise PluginError(plugin, "extra_layer", f"{self.spec.name}: returned {found}, expected {expected}")
        return hidden + (self.gate * delta).to(hidden.dtype)


class ExtraLayers(nn.Module):
    """All extra layers of a run, hooked into one model. Without features for a pass, the pass is the base's own."""

    def __init__(self, model: PreTrainedModel, specs: Sequence[LayerSpec], seed: int) -> None:
        super().__init__()
        hidden_size = model.config.get_text_config().hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(GatedLayer(spec, hidden_size) for spec in specs)
        self.to(device=model.device, dtype=torch.float32)
        self.enabled = True  # False while the base model is asked
        self._features: Features | None = None
        self._losses: dict[str, torch.Tensor] = {}
        for layer in self.layers:
            assert isinstance(layer, GatedLayer)
            site_module(model, layer.spec.site).register_forward_hook(self._hook(layer))

    @contextmanager
    def using(self, features: Features | None) -> Iterator[None]:
        """Give the layers this pass's features; None switches them off."""
        self._features = features if self.enabled else None
        try:
            yield
        finally:
            self._features, self._losses = None, {}

    def losses(self) -> dict[str, torch.Tensor]:
        """The layers' own losses of this pass, `(B,)` by layer name; inside `using` only."""
        return dict(self._losses)

    def _hook(self, layer: GatedLayer):  # type: ignore[no-untyped-def]  # torch's own hook type is private
        def hook(module: nn.Module, args: object, output: torch.Tensor | tuple) -> torch.Tensor | tuple | None:
            if self._features is None:
                return None
            hidden = output[0] if isinstance(output, tuple) else output
            if layer.spec.loss is not None and torch.is_grad_enabled():
                self._losses[layer.spec.name] = layer.spec.loss(layer.inner, hidden.float(), self._features)
            changed = layer(hidden, self._features)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        return hook

    def names(self) -> list[str]:
        """Names of the layers, in order."""
        return [layer.spec.name for layer in self.layers]  # type: ignore[union-attr, misc]

    def save(self, directory: Path) -> None:
        """Write the layers' weights beside an adapter, by layer name."""
        from safetensors.torch import save_file

        if len(self.layers):
            save_file(self.tensors(), directory / WEIGHTS)

    def tensors(self) -> dict[str, torch.Tensor]:
        """`{"plugin/name:parameter": tensor}`, stable under the order of layers."""
        return {
            f"{layer.spec.name}:{name}": value.detach().contiguous().clone()  # type: ignore[union-attr]
            for layer in self.layers
            for name, value in layer.state_dict().items()
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Set weights from `tensors()`'s layout.

        Raises
        ------
        UserError : when a layer or parameter is missing, left over or of another shape.
        """
        own = {f"{layer.spec.name}:{n}": p for layer in self.layers for n, p in layer.state_dict().items()}  # type: ignore[union-attr]
        if own.keys() != tensors.keys():
            missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
            raise UserError(f"{WEIGHTS}: missing {missing}, left over {extra}", fix="use the recipe of that run")
        for name, target in own.items():
            if target.shape != tensors[name].shape:
                raise UserError(f"{WEIGHTS}: {name} is {tuple(tensors[name].shape)}, expected {tuple(target.shape)}")
            target.copy_(tensors[name])


def site_module(model: PreTrainedModel, site: str) -> nn.Module:
    """The module behind a site name: `embedding`, `block:i` (negative from the end) or `head`.

    Raises
    ------
    UserError : for an unknown site, or a block that the model does not have.
    """
    if site == "embedding":
        return model.get_input_embeddings()
    decoder = model.base_model
    blocks = next((m for m in decoder.children() if isinstance(m, nn.ModuleList)), None)
    if site == "head":
        norms = [m for name, m in decoder.named_children() if "norm" in name or name == "ln_f"]
        if norms:
            return norms[-1]
    elif (named := re.fullmatch(r"block:(-?[0-9]{1,6})", site)) and blocks is not None:
        index = int(named[1])
        if -len(blocks) <= index < len(blocks):
            return blocks[index]
        raise UserError(
            f"site {site!r}: the model has {len(blocks)} blocks", fix=f"use block:0 to block:{len(blocks) - 1}"
        )
    raise UserError(f"site {site!r} is not in {type(model).__name__}", fix="use embedding, block:i or head")
