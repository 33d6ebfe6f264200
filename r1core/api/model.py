"""What `model_source` and `extra_layer` return, and how a layer is shown the spans of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


@runtime_checkable
class ModelSource(Protocol):
    """Named base models that a plugin can provide as a local Hugging Face directory."""

    def names(self) -> Mapping[str, str]:
        """Name to one-line description (size, licence)."""
        ...

    def materialise(self, name: str) -> Path:
        """Return the directory, converting or unpacking it once; atomic, so a killed run leaves nothing half made."""
        ...

    def fingerprint(self, name: str) -> str:
        """Hash of the source bytes of that model; cheap, no conversion."""
        ...


@dataclass(frozen=True, slots=True)
class SlotFeatures:
    """The spans of one kind in a batch, aligned with tokens.

    B = rows, S = slots (padded), V = the kind's `width`. All tensors live on the batch's device.
    `start`, `end` : (B, S) int64, token range `[start, end)`; `values` : (B, S, V) float32; `mask` : (B, S) bool.
    `row` : (B, S) int64, which example a slot is of where several are packed into one sequence; None where each row is
    a sequence of its own.
    """

    start: torch.Tensor
    end: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    row: torch.Tensor | None = None

    def to(self, device: torch.device) -> SlotFeatures:
        """The same slots on a device."""
        row = None if self.row is None else self.row.to(device)
        start, end, values, mask = (t.to(device) for t in (self.start, self.end, self.values, self.mask))
        return SlotFeatures(start, end, values, mask, row)


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One extra layer: where it sits, what it reads and how it is made.

    Parameters
    ----------
    site : `embedding`, `block:i` (after decoder block i, negative from the end) or `head` (before the output head).
    factory : `hidden_size -> torch.nn.Module`, whose `forward(hidden (B, T, D), features) -> (B, T, D)` gives what is
        added to the hidden state. The core multiplies it by a zero-initialised gate, so step 0 equals the base.
        It must work position by position: a packed batch holds several rows in one sequence, and while decoding the
        one token a row that is new. A slot says something about its own tokens, and about no other.
    kinds : the span kinds that `features` holds (`{kind: SlotFeatures}`).
    loss : auxiliary loss `(module, hidden, features) -> (B,)`, summed over a row's tokens, weighted by `[layers]`.
    output : `(module, hidden (1, T, D), features)` to what decode constraints find in `request.outputs[name]`. Called
        once a row, when its prompt has been read, with that row alone: the T tokens that were read (the prompt, and
        the given start of the answer where there is one), its own spans counted from its first token, and the hidden
        state that `forward` was given, float32, without gradient. It may look at all tokens of the row.
    """

    name: str
    site: str
    factory: Callable[[int], torch.nn.Module]
    kinds: tuple[str, ...] = ()
    loss: Callable[..., torch.Tensor] | None = None
    output: Callable[[torch.nn.Module, torch.Tensor, Mapping[str, SlotFeatures]], object] | None = None
