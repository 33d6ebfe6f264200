"""An augmentation that derives a copy whose question is in lower case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from r1core import api


class LowerCase:
    """Yields a further example for about half of the records."""

    name = "augment/lower-case"

    def __call__(self, example: api.Example, rng: np.random.Generator) -> Iterable[api.Example]:
        """Draw from `rng` only: it is derived from (seed, epoch, index), so a rerun draws alike."""
        if rng.random() < 0.5:
            messages = tuple(replace(m, content=m.content.lower()) if m.role == "user" else m for m in example.messages)
            yield replace(example, id=f"{example.id}:lower", messages=messages, spans=())

    def fingerprint(self) -> str:
        """Raise the number when the behaviour changes."""
        return "1"


@api.hookimpl
def augment(ctx: api.Context) -> Sequence[api.Augment]:
    """The one augmentation."""
    return [LowerCase()]
