"""Extra layers at named sites, attached by forward hooks, behind a zero-initialised gate.

The gate belongs to the core, so a layer cannot change the base at step 0: `hidden + gate * delta` with `gate = 0`
equals `hidden` to the bit. Layers live outside the base model's tree; PEFT never sees them and the model is never
wrapped.

B = rows, T = tokens, D = hidden size. Layers whose `delta` at a token reads other tokens' hidden states are not
covered: a packed batch holds several rows, and they would see one another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from r1core.api import LayerSpec, PluginError, R1Error, SlotFeatures, UserError
from r1core.model.own_files import LAYERS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Features = Mapping[str, SlotFeatures]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a packed sequence, for layers that give an output.

    `places` : (T,) int64, where the row's tokens stand in the sequence, in order; `features` : the row's own slots,
    counted from its first token.
    """

    places: torch.Tensor
    features: Features


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
        with self._in_its_name():
            delta = self.inner(hidden.float(), {kind: features[kind] for kind in self.spec.kinds})
        if not isinstance(delta, torch.Tensor) or delta.shape != hidden.shape:
            found = f"shape {tuple(delta.shape)}" if isinstance(delta, torch.Tensor) else type(delta).__name__
            raise self._broke(f"returned {found}, expected {tuple(hidden.shape)}")
        return hidden + (self.gate * delta).to(hidden.dtype)

    def output(self, hidden: torch.Tensor, row: Row) -> object:
        """What the spec's `output` says of one row of a packed sequence `(1, packed, D)`.

        Raises
        ------
        PluginError : when the plugin's function raises.
        """
        assert self.spec.output is not None
        with self._in_its_name():
            features = {kind: row.features[kind] for kind in self.spec.kinds}
            return self.spec.output(self.inner, hidden[:, row.places].float(), features)

    @contextmanager
    def _in_its_name(self) -> Iterator[None]:
        try:
            yield
        except R1Error:
            raise
        except Exception as error:
            raise self._broke(str(error)) from error

    def _broke(self, what: str) -> PluginError:
        return PluginError(self.spec.name.partition("/")[0], "extra_layer", f"{self.spec.name}: {what}")


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
        self._rows: Sequence[Row] = ()
        self._outputs: list[dict[str, object]] = []
        self._losses: dict[str, torch.Tensor] = {}
        for layer in self.layers:
            assert isinstance(layer, GatedLayer)
            site_module(model, layer.spec.site).register_forward_hook(self._hook(layer))

    @contextmanager
    def using(self, features: Features | None, rows: Sequence[Row] = ()) -> Iterator[None]:
        """Give the layers this pass's features; None switches them off.

        Parameters
        ----------
        rows : the rows of the pass for which layers that declare an `output` are asked for it.
        """
        self._features = features if self.enabled else None
        self._rows, self._outputs = rows, [{} for _ in rows]
        try:
            yield
        finally:
            self._features, self._losses = None, {}
            self._rows, self._outputs = (), []

    def outputs(self) -> list[dict[str, object]]:
        """What the layers gave for each row of this pass, by layer name; inside `using` only."""
        return self._outputs

    @property
    def gives_outputs(self) -> bool:
        """Whether any layer that is on declares an `output`."""
        return self.enabled and any(layer.spec.output is not None for layer in self.layers)  # type: ignore[union-attr]

    def reads(self, kinds: Set[str]) -> bool:
        """Whether any layer that is on reads one of these span kinds."""
        return self.enabled and any(kinds & set(layer.spec.kinds) for layer in self.layers)  # type: ignore[union-attr, arg-type]

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
            if layer.spec.output is not None:
                for row, given in zip(self._rows, self._outputs, strict=True):
                    given[layer.spec.name] = layer.output(hidden, row)
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
            save_file(self.tensors(), directory / LAYERS)

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
            raise UserError(f"{LAYERS}: missing {missing}, left over {extra}", fix="use the recipe of that run")
        for name, target in own.items():
            if target.shape != tensors[name].shape:
                raise UserError(f"{LAYERS}: {name} is {tuple(tensors[name].shape)}, expected {tuple(target.shape)}")
            target.copy_(tensors[name])


def site_module(model: PreTrainedModel, site: str) -> nn.Module:
    """The module behind a site name: `embedding`, `block:i` (negative from the end) or `head`.

    Raises
    ------
    UserError : for an unknown site, or a block that the model does not have.
    """
    if site == "embedding":
        return model.get_input_embeddings()
    blocks = blocks_of(model)
    if site == "head":
        norms = [m for name, m in model.base_model.named_children() if "norm" in name or name == "ln_f"]
        if norms:
            return norms[-1]
    elif (named := re.fullmatch(r"block:(-?[0-9]{1,6})", site)) and blocks:
        index = int(named[1])
        if -len(blocks) <= index < len(blocks):
            return blocks[index]
        raise UserError(
            f"site {site!r}: the model has {len(blocks)} blocks", fix=f"use block:0 to block:{len(blocks) - 1}"
        )
    raise UserError(f"site {site!r} is not in {type(model).__name__}", fix="use embedding, block:i or head")


def blocks_of(model: PreTrainedModel) -> Sequence[nn.Module]:
    """The decoder blocks, lowest first; none where the model keeps them otherwise than in a list of its decoder."""
    found = next((m for m in model.base_model.children() if isinstance(m, nn.ModuleList)), None)
    return () if found is None else list(found)
