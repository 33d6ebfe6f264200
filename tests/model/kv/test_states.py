"""What is held against the states that went in: a naive quantiser, a plain list of tokens, plain attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from r1core.errors import UserError
from r1core.model.kv.held import Held
from r1core.model.kv.states import PackedStates

WIDTHS = ((2, 3, 24, 24), (1, 2, 64, 128), (1, 1, 80, 40))
"""Batch, heads, key and value widths."""


def drawn(seed: int, tokens: int, widths: tuple[int, int, int, int] = WIDTHS[0]) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values; a channel of the keys lies far off, as in real models."""
    batch, heads, key, value = widths
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(batch, heads, tokens, key, generator=generator)
    keys[..., 3] = keys[..., 3] * 5 + 20
    return keys, torch.randn(batch, heads, tokens, value, generator=generator)


def naive(group: np.ndarray, bits: int) -> np.ndarray:
    """Round to the nearest of 2**bits levels from the smallest to the largest; steps and start in bf16."""
    zero = float(torch.tensor(group.min()).bfloat16())
    step = float(torch.tensor((group.max() - group.min()) / (2**bits - 1)).bfloat16())
    return np.array([zero + step * min(max(round((float(x) - zero) / step), 0), 2**bits - 1) for x in group])


@pytest.mark.parametrize(("bits", "size"), [(4, 32), (5, 64), (6, 64)])
def test_numbers_are_rounded_as_a_naive_loop_rounds_them(bits: int, size: int) -> None:
    keys, values = drawn(0, 4 + 128 + 40)
    states = PackedStates(bits, first=4, newest=40)
    states.append(keys, values)
    assert states.held is not None
    held_keys, held_values = states.held.read_keys(), states.held.read_values()
    for exact in (slice(0, 4), slice(132, None)):
        assert torch.equal(held_keys[:, :, exact], keys[:, :, exact])
        assert torch.equal(held_values[:, :, exact], values[:, :, exact])
    for start in range(4, 132, size):
        for channel in (0, 3, 23):
            group = keys[1, 2, start : start + size, channel].numpy()
            found = held_keys[1, 2, start : start + size, channel].numpy()
            assert np.allclose(found, naive(group, bits), atol=1e-5)
    for token in (4, 77, 131):
        assert np.allclose(held_values[0, 1, token].numpy(), naive(values[0, 1, token].numpy(), bits), atol=1e-5)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("bits", [4, 5, 6])
def test_attention_from_codes_is_attention_to_what_is_read(bits: int, widths: tuple[int, int, int, int]) -> None:
    states = PackedStates(bits)
    states.append(*drawn(1, 300, widths))
    held = states.append(*drawn(2, 2, widths))
    query = torch.randn(widths[0], 3 * widths[1], 2, widths[2])
    seen = torch.rand(widths[0], 1, 2, 302) < 0.7
    added = torch.zeros(1, 3 * widths[1], 1, 302).masked_fill(torch.rand(3 * widths[1], 1, 302) < 0.3, -torch.inf)
    for mask in (None, seen, added):
        for view in (held, held.last(130)):
            cut = None if mask is None else mask[..., 302 - view.length :]
            keys, values = (states.repeat_interleave(3, 1) for states in (view.read_keys(), view.read_values()))
            expected = torch.nn.functional.scaled_dot_product_attention(query, keys, values, cut, scale=0.2)
            scores = query @ keys.mT * 0.2
            if cut is not None:
                scores = scores.masked_fill(~cut, -torch.inf) if cut.dtype == torch.bool else scores + cut
            output, denominator = view.attend_in_part(query, cut, 0.2)
            assert torch.equal(output, view.attend(query, cut, 0.2))
            assert torch.allclose(output, expected, atol=2e-4)
            assert torch.allclose(denominator, scores.logsumexp(-1), atol=2e-4)


def test_two_holdings_merge_into_one_attention() -> None:
    keys, values = drawn(3, 400)
    query = torch.randn(2, 9, 1, 24)
    parts, read = [], []
    for part in (slice(0, 250), slice(250, 400)):
        states = PackedStates(4, first=0, newest=0)
        states.append(keys[:, :, part], values[:, :, part])
        assert states.held is not None
        parts.append(states.held.attend_in_part(query))
        read.append((states.held.read_keys(), states.held.read_values()))
    shares = torch.stack([log for _, log in parts]).softmax(0)[..., None]
    merged = shares[0] * parts[0][0] + shares[1] * parts[1][0]
    whole = [torch.cat(both, 2).repeat_interleave(3, 1) for both in zip(*read, strict=True)]
    expected = torch.nn.functional.scaled_dot_product_attention(query, *whole)
    assert torch.allclose(merged, expected, atol=1e-4)


def near(held: Held | None, keys: torch.Tensor, values: torch.Tensor) -> None:
    """Held is what a plain list of tokens has, up to two roundings to 6 bits."""
    assert held is not None
    assert held.length == keys.shape[2]
    assert float((held.read_keys() - keys).abs().max()) < 1.5  # the far channel spans some 25: a step of 0.4
    assert float((held.read_values() - values).abs().max()) < 0.2


@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_changes_is_followed(seed: int) -> None:
    random = np.random.default_rng(seed)
    states = PackedStates(6)
    keys, values = drawn(seed, 0)
    for turn in range(40):
        change = random.choice(["append", "append", "append", "crop", "forget", "select", "repeat"])
        if change == "append" or keys.shape[2] < 2:
            more = drawn(100 * seed + turn, int(random.choice([1, 3, 64, 200])))
            more = tuple(part[[0] * keys.shape[0]] for part in more)  # type: ignore[assignment]
            keys, values = torch.cat([keys, more[0]], 2), torch.cat([values, more[1]], 2)
            near(states.append(*more), keys, values)
        elif change == "crop":
            count = int(random.integers(1, min(150, keys.shape[2] - 1) + 1))
            states.crop(count)
            keys, values = keys[:, :, :-count], values[:, :, :-count]
        elif change == "forget":
            count = int(random.integers(1, min(150, keys.shape[2] - 1) + 1))
            states.forget(count)
            keys, values = keys[:, :, count:], values[:, :, count:]
        elif change == "select":
            rows = torch.tensor(random.integers(0, keys.shape[0], 2))
            states.select(rows)
            keys, values = keys[rows], values[rows]
        elif keys.shape[0] < 4:
            states.repeat(2)
            keys, values = keys.repeat_interleave(2, 0), values.repeat_interleave(2, 0)
        near(states.held, keys, values)


def test_what_was_seen_stays_as_it_was() -> None:
    states = PackedStates(4)
    before = states.append(*drawn(5, 200))
    keys = before.read_keys().clone()
    states.append(*drawn(6, 100))
    states.crop(150)
    assert torch.equal(before.read_keys(), keys)


def test_no_memory_of_the_prompt_is_held_back() -> None:
    keys, values = drawn(7, 1000, (1, 4, 64, 64))
    states = PackedStates(4)
    states.append(keys.bfloat16(), values.bfloat16())
    assert states.nbytes < 0.35 * 2 * (keys.numel() + values.numel())
    few = PackedStates(4)
    wide = torch.zeros(1, 4, 5, 192)
    few.append(wide[..., :64], wide[..., 64:128])  # views, as a fused projection gives them
    assert few.nbytes == 2 * 4 * 5 * 64 * 4


@pytest.mark.parametrize("asked", [{"bits": 8}, {"bits": 3}, {"first": -1}, {"newest": -2}])
def test_what_cannot_be_is_refused(asked: dict[str, int]) -> None:
    with pytest.raises(UserError):
        PackedStates(**asked)
