"""An adapter's weights as one vector: names and shapes are agreed upon by their hash, so that one array travels."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""All weights one behind another, (P,)."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Names and shapes of an adapter's weights, in the order of their names."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, weights: Mapping[str, NDArray[np.float32]]) -> Layout:
        """The layout of these weights."""
        return cls(tuple((name, tuple(weights[name].shape)) for name in sorted(weights)))

    @property
    def size(self) -> int:
        """P, the number of values."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    @property
    def key(self) -> str:
        """What the vector is called on its way: a hash of all names and shapes."""
        return "adapter-" + hashlib.sha256(json.dumps(self.shapes).encode()).hexdigest()

    def vector(self, weights: Mapping[str, NDArray[np.float32]]) -> Vector:
        """Weights of this layout as one vector, float32."""
        return np.concatenate([weights[name].ravel() for name, _ in self.shapes]).astype(np.float32)

    def named(self, vector: Vector) -> dict[str, Vector]:
        """The weights of a vector by name."""
        ends = np.cumsum([math.prod(shape) for _, shape in self.shapes])
        parts = np.split(vector, ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes, parts, strict=True)}

    def unfit(self, found: Mapping[str, NDArray[np.generic]]) -> str | None:
        """Why what was received is not one vector of this layout; None where it is."""
        if list(found) != [self.key]:
            return f"weights of other names or shapes ({', '.join(found)[:24] or 'none'}, expected {self.key[:24]})"
        vector = found[self.key]
        if vector.shape != (self.size,) or vector.dtype != np.float32:
            return f"{vector.dtype} {vector.shape}, expected float32 ({self.size},)"
        return None if np.isfinite(vector).all() else "values that are not finite"
