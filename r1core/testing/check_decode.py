"""Checks of decode constraints over the tiny tokenizer: masks valid, states immutable and determined by the prefix."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from r1core import api
from r1core.testing.samples import GIVE_EXAMPLES

STEPS = 24
"""Tokens of each random walk: enough to enter and leave a guarded word."""


def constraint(
    plugin: str, component: Any, examples: Sequence[api.Example], outputs: Mapping[str, Any]
) -> Iterator[str]:
    """Failures of one constraint over the prompts of the examples, of which layers say `outputs`."""
    from r1core.decode.constraints import Request
    from r1core.decode.vocabulary import Vocabulary
    from r1core.testing.tiny import tiny_tokenizer

    vocabulary = Vocabulary.from_tokenizer(tiny_tokenizer())
    applied = False
    for number, example in enumerate(examples):
        first, second = (component.start(Request(example, vocabulary, outputs)) for _ in range(2))
        at = f"{component.name} on {example.id!r}"
        if (first is None) != (second is None) or (first is not None and first.key != second.key):
            yield f"{at}: equal requests start differently"
        elif first is not None:
            applied = True
            yield from _walk(at, first, second, vocabulary.size, random.Random(number))
    if not applied:
        yield f"{component.name}: it applies to none of the records, so its states were not checked; {GIVE_EXAMPLES}"


def _walk(at: str, state: Any, twin: Any, size: int, rng: random.Random) -> Iterator[str]:
    """Failures on a random walk of allowed tokens; `twin` walks the same way and must stay equal."""
    for number in range(STEPS):
        mask = state.mask()
        if flaw := mask_flaw(mask, size):
            yield f"{at}, token {number}: {flaw}"
            return
        allowed = _allowed(mask, size)
        if state.key != twin.key or not np.array_equal(allowed, _allowed(twin.mask(), size)):
            yield f"{at}, token {number}: equal prefixes lead to different keys or masks"
            return
        options, banned = np.flatnonzero(allowed), np.flatnonzero(~allowed)
        if len(banned) and not state.explain(int(rng.choice(banned))):
            yield f"{at}, token {number}: a banned token has no reason"
        if not len(options):
            return
        token, key = int(rng.choice(options)), state.key
        after = state.advance(token)
        if state.key != key or not np.array_equal(allowed, _allowed(state.mask(), size)):
            yield f"{at}, token {number}: advance changed the state itself"
            return
        state, twin = after, twin.advance(token)


def mask_flaw(mask: object, size: int) -> str:
    """What is wrong with a mask over `size` tokens, or ""."""
    if not isinstance(mask, api.TokenMask):
        return f"mask is {type(mask).__name__}, expected TokenMask"
    if mask.banned is not None:
        ids = mask.banned
        if ids.dtype not in (np.int32, np.int64) or ids.ndim != 1:
            return f"banned ids are {ids.dtype} of {ids.ndim} dimensions, expected int32 or int64 of one"
        if len(ids) and (np.any(np.diff(ids) <= 0) or ids[0] < 0 or ids[-1] >= size):
            return f"banned ids are not sorted, unique and in [0, {size})"
    elif mask.allowed is not None and (mask.allowed.dtype != np.uint8 or mask.allowed.shape != ((size + 7) // 8,)):
        found = f"{mask.allowed.dtype} {mask.allowed.shape}"
        return f"allowed bits are {found}, expected uint8 ({(size + 7) // 8},)"
    return ""


def _allowed(mask: api.TokenMask, size: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if mask.allowed is not None:
        return np.unpackbits(mask.allowed, count=size, bitorder="little").astype(bool)
    allowed = np.ones(size, dtype=bool)
    allowed[mask.banned] = False
    return allowed
