"""Which tokens of a pass see which images, and the tower's features of these images.

An image is a slot of the core's own span kind `r1core/image`, whose one value is the image's number; the slot covers
the tokens that see it: the whole row, whatever is packed beside it. Slots of one range are the images of one row.

A frozen tower is asked once an image, and its features are kept, up to `KEPT_BYTES`; one that is trained is asked in
every pass, once for all sites. G = stretches of text that see images, N = images of the pass, W = the tower's width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from r1core.api import SlotFeatures
from r1core.model.fusion.tower import Tower

KEPT_BYTES = 1 << 30
"""Features of a frozen tower that are kept in memory; the oldest go first."""

Pixels = Callable[[Sequence[int]], torch.Tensor]
"""From the numbers of N images to what the tower takes, `(N, 3, height, width)` float32."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A `Seen` without the features: `numbers` are those of its N images."""

    numbers: tuple[int, ...]
    places: torch.Tensor
    images: torch.Tensor
    real: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a pass sees.

    `features` : (N, P, W), of each image once; `places` : (G, T) int64, the tokens of each stretch in the flattened
    pass, filled up with `rows * tokens`; `images` : (G, I) int64, places in `features`; `real` : (G, I) bool, or None
    where every stretch has as many images.
    """

    features: torch.Tensor
    places: torch.Tensor
    images: torch.Tensor
    real: torch.Tensor | None


class Sight:
    """The images of a run through one tower, shared by all sites.

    Parameters
    ----------
    trained : the tower is trained with the rest, else its weights stand still.
    """

    def __init__(self, tower: Tower, pixels: Pixels, *, trained: bool) -> None:
        self.tower, self.trained = tower.requires_grad_(trained), trained
        self._pixels = pixels
        self._kept: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._kept_bytes = 0
        self._last: tuple[SlotFeatures, bool, int, Seen | None] | None = None
        self._laid: tuple[SlotFeatures, tuple[int, int], torch.device, Layout | None] | None = None

    def of(self, slots: SlotFeatures, shape: tuple[int, int], device: torch.device) -> Seen | None:
        """What the tokens of a pass of this shape (rows, tokens) see; None where none sees an image."""
        state = (torch.is_grad_enabled(), next(self.tower.parameters())._version)
        if self._last is not None and self._last[0] is slots and self._last[1:3] == state:
            return self._last[3]
        if self._laid is None or self._laid[0] is not slots or self._laid[1:3] != (shape, device):
            self._laid = (slots, shape, device, _layout(slots, shape, device))
        layout = self._laid[3]
        seen = None
        if layout is not None:
            seen = Seen(self.features(layout.numbers, device), layout.places, layout.images, layout.real)
        self._last = (slots, *state, seen)
        if seen is not None and seen.features.requires_grad:  # a graph serves one backward pass
            seen.features.register_hook(self._forget)
        return seen

    def _forget(self, gradient: torch.Tensor) -> None:
        self._last = None

    def features(self, numbers: Sequence[int], device: torch.device) -> torch.Tensor:
        """The tower's features of these images, `(N, P, W)` float32."""
        if self.trained:
            features: torch.Tensor = self.tower(self._pixels(numbers).to(device))
            return features
        new = [number for number in numbers if number not in self._kept]
        found = {number: self._kept[number] for number in numbers if number in self._kept}
        if new:
            self.tower.to(device)
            with torch.no_grad():
                found |= zip(new, self.tower(self._pixels(new).to(device)), strict=True)
            for number in new:
                self._keep(number, found[number].clone())
        return torch.stack([found[number] for number in numbers])

    def _keep(self, number: int, features: torch.Tensor) -> None:
        self._kept[number] = features
        self._kept_bytes += features.nbytes
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.nbytes


def _layout(slots: SlotFeatures, shape: tuple[int, int], device: torch.device) -> Layout | None:
    """Who sees what, worked out on the host: once for slots that come again, as in a pass that is recorded."""
    groups: dict[tuple[int, int], list[int]] = {}
    told = (slots.start.tolist(), slots.end.tolist(), slots.values[..., 0].tolist(), slots.mask.tolist())
    for row, each in enumerate(zip(*told, strict=True)):
        for start, end, number, real in zip(*each, strict=True):
            if real:
                groups.setdefault((row * shape[1] + start, row * shape[1] + end), []).append(int(number))
    if not groups:
        return None
    numbers = {number: at for at, number in enumerate(dict.fromkeys(n for held in groups.values() for n in held))}
    longest, most = max(b - a for a, b in groups), max(map(len, groups.values()))
    nowhere = shape[0] * shape[1]
    places = torch.full((len(groups), longest), nowhere)
    images = torch.zeros(len(groups), most, dtype=torch.int64)
    real = torch.zeros(len(groups), most, dtype=torch.bool)
    for group, ((start, end), held) in enumerate(groups.items()):
        places[group, : end - start] = torch.arange(start, end)
        images[group, : len(held)] = torch.tensor([numbers[number] for number in held])
        real[group, : len(held)] = True
    mask = None if bool(real.all()) else real.to(device)
    return Layout(tuple(numbers), places.to(device), images.to(device), mask)
