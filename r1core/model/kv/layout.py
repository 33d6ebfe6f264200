"""How tokens stand in a block: sizes that packing, unpacking and the GPU's kernels share."""

from __future__ import annotations

BLOCK = 64
"""Tokens that are quantised together."""
KEY_GROUPS = {4: 32, 5: 64, 6: 64}
"""Tokens that share a step of one channel of the keys, by bits: what is lost by few bits is lost in the keys."""
HALF = BLOCK // 2
"""Tokens of a block whose codes stand together, so that both halves of a byte are as far apart in keys as in values."""
VALUE_GROUP = 64
"""Channels of one token's values that share a step, at most."""


def value_group(width: int) -> int:
    """The largest divisor of a head's width that is not above `VALUE_GROUP`."""
    return max(size for size in range(1, min(width, VALUE_GROUP) + 1) if width % size == 0)
