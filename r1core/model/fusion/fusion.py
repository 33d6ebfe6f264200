"""The fusion layer: three stages between text and image at a site of a language model, attached as an extra layer.

It is a `LayerSpec` like a plugin's, so the core's zero gate, saving, training and packing hold for it: step 0 equals
the base to the bit, and a token sees its own row's images and no other's. Gated cross-attention into a language model
is Flamingo's (Alayrac et al. 2022, section 3.1.2); its gate is one number a layer, the core's is one a hidden unit.

Images belong to the prompt: all tokens of a row see all of its images, and no image changes while the answer grows.
Not covered: images that stand at a place of the text, or inside an answer, and several resolutions in one run.

B = rows, T = tokens, D = hidden size, G = stretches of text, I = images of each, P = patches, C = 768.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.functional import pad

from r1core.api import SlotFeatures
from r1core.data.images import IMAGE
from r1core.model.fusion.cross import CrossAttention, seed_attention
from r1core.model.fusion.places import Places
from r1core.model.fusion.projection import WIDTH, Projection
from r1core.model.fusion.sight import Sight
from r1core.model.fusion.weighting import Weighting
from r1core.recipe.vision import Mode

GAIN = 10.0
"""How loud the way back is at a gate of 1, as a multiple of the hidden state at its place. The core's gate starts at 0
and moves a learning rate a step, so without a gain thousands of steps go by before the model hears the image."""


class Fusion(nn.Module):
    """Text that looks at images, `(B, T, D) -> (B, T, D)`; 0 for tokens that see none.

    Parameters
    ----------
    mode : `seed` computes exactly `softmax(T I^T / sqrt(768)) I + T` on the projections T and I; `fusion` adds to I
        where its patches stand, attends with queries, keys and values of its own in several heads, and weighs text
        against image for each token.
    owns_tower : the tower is a part of this layer: trained, and saved, with it.
    """

    def __init__(
        self, hidden_size: int, sight: Sight, mode: Mode = "fusion", heads: int = 12, *, owns_tower: bool = False
    ) -> None:
        super().__init__()
        self.mode = mode
        self._sight = [sight]  # in a list: a tower that stands still is no part of this module
        self.projection = Projection(hidden_size, sight.tower.width)
        if mode == "fusion":
            self.places = Places(sight.tower.grid, WIDTH)
            self.cross, self.weighting = CrossAttention(WIDTH, heads), Weighting(WIDTH)
        self.out = nn.Linear(WIDTH, hidden_size)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.endswith(("gate", "judge")):  # these start at 0
                nn.init.normal_(module.weight, std=module.in_features**-0.5)  # keeps the variance of its input
        if owns_tower:
            self.tower = sight.tower

    def forward(self, hidden: torch.Tensor, features: Mapping[str, SlotFeatures]) -> torch.Tensor:
        """What is added to the hidden state."""
        rows, tokens, size = hidden.shape
        seen = self._sight[0].of(features[IMAGE.name], (rows, tokens), hidden.device)
        if seen is None:
            return torch.zeros_like(hidden)
        flat = pad(hidden.reshape(-1, size), (0, 0, 0, 1))  # one more place, where what only fills up comes and goes
        text = self.projection.text(flat[seen.places])
        image = self.projection.image(seen.features)
        image = (image + self.places() if self.mode == "fusion" else image)[seen.images].flatten(1, 2)
        real = None if seen.real is None else seen.real.repeat_interleave(seen.features.shape[1], 1)
        mixed = self.fused(text, image, real)
        changed = mixed if self.mode == "seed" else mixed - text  # the hidden state holds its text already
        delta = self.out(changed)
        spread = torch.zeros_like(flat).index_put((seen.places.flatten(),), delta.flatten(0, 1))
        loudness = hidden.detach().square().mean(-1, keepdim=True).sqrt()
        return GAIN * loudness * spread[:-1].view_as(hidden)

    def fused(self, text: torch.Tensor, image: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Both modalities in one, `(G, T, C)`, of projections `(G, T, C)` and `(G, I * P, C)`.

        Parameters
        ----------
        real : (G, I * P) bool, the patches that count; None for all.
        """
        if self.mode == "seed":
            return seed_attention(text, image, real) + text
        mixed: torch.Tensor = self.weighting(text, self.cross(text, image, real))
        return mixed
