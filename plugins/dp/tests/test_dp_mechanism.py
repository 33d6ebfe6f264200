"""Noise, sampling and clipping: what the guarantee stands on, against distributions and neighbouring data sets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_dp.clipping import add_clipped, by_unit
from r1core_dp.entropy import Fill, buffer_of, chosen, normal, normal_bits, system
from scipy import stats


def counted(seed: int) -> Fill:
    """Bytes that can be made again."""
    draw = np.random.default_rng(seed)

    def fill(buffer: memoryview) -> None:
        buffer[:] = draw.bytes(len(buffer))

    return fill


def ones(buffer: memoryview) -> None:
    """The largest number there is, so that no unit is drawn."""
    buffer[:] = b"\xff" * len(buffer)


def drawn(number: int) -> bytes:
    """Bytes of the system."""
    found = bytearray(number)
    system(memoryview(found))
    return bytes(found)


@pytest.mark.parametrize("source", [system, counted(3)], ids=["the system's", "put in"])
def test_noise_is_normal(source: Fill) -> None:
    bits = normal_bits(3_000_001)
    source(buffer_of(bits))
    found = normal(3_000_001, bits)
    assert found.shape == (3_000_001,)
    assert float(found.double().std()) == pytest.approx(1.0, abs=0.005)
    assert float(found.double().mean()) == pytest.approx(0.0, abs=0.003)
    assert stats.kstest(found.numpy()[::3], "norm").pvalue > 1e-6
    halves = found[:3_000_000].view(2, -1)
    assert abs(float(np.corrcoef(halves.numpy())[0, 1])) < 0.004


def test_noise_never_comes_again_and_knows_no_seed() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        np.random.seed(0)  # the global state that must not matter
        bits = normal_bits(1000)
        system(buffer_of(bits))
        found.append(normal(1000, bits))
    assert not torch.equal(*found)
    assert len({drawn(32) for _ in range(50)}) == 50


@settings(max_examples=20, deadline=None)
@given(st.floats(0.001, 1.0), st.integers(0, 2**31))
def test_each_unit_is_drawn_with_its_probability(rate: float, seed: int) -> None:
    number = 200_000
    found = int(chosen(number, rate, counted(seed)).sum())
    assert abs(found - rate * number) <= 6 * math.sqrt(number * rate * (1 - rate)) + 1e-9


ROWS = st.integers(0, 7)
KINDS = st.sampled_from(["plain", "zero", "tiny", "huge", "overflow", "inf", "nan"])


def gradient(kind: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """A row's gradient as a record might be made to give it."""
    made = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    factor = {"zero": 0.0, "tiny": 1e-30, "huge": 1e12, "overflow": 3e38}.get(kind, 1.0)
    made = (made * factor).clamp(-3.4e38, 3.4e38)
    if kind in ("inf", "nan"):
        made.view(-1)[0] = math.inf if kind == "inf" else math.nan
    return made


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(KINDS, min_size=1, max_size=4), max_size=6),
    st.lists(KINDS, min_size=1, max_size=4),
    st.sampled_from([1e-3, 1.0, 100.0]),
    st.integers(0, 10**6),
)
def test_one_unit_more_moves_the_sum_by_no_more_than_the_norm(
    others: list[list[str]], extra: list[str], max_norm: float, seed: int
) -> None:
    shapes = ((4, 3), (5,))

    def total(units: list[list[str]]) -> torch.Tensor:
        if not units:
            return torch.zeros(17, dtype=torch.float64)
        kinds = [kind for unit in units for kind in unit]
        rows = [torch.stack([gradient(k, s, seed + 31 * n) for n, k in enumerate(kinds)]) for s in shapes]
        found = torch.zeros(17)
        add_clipped(found, by_unit(rows, [len(unit) for unit in units]), max_norm)
        return found.double()

    without, with_it = total(others), total([*others, extra])
    assert bool(with_it.isfinite().all())
    # Besides the norm itself, the sum's own rounding: of as many units as there are.
    assert float((with_it - without).norm()) <= 1.0001 * max_norm + 1e-6 * max_norm * len(others)


def test_a_small_gradient_is_left_as_it_is() -> None:
    rows = [torch.tensor([[0.3, 0.4], [3.0, 4.0]])]
    found = torch.zeros(2)
    add_clipped(found, by_unit(rows, [1, 1]), 1.0)
    assert torch.allclose(found, torch.tensor([0.9, 1.2]))


def test_a_step_is_the_clipped_sum_with_noise_of_the_stated_size(desk: Any) -> None:
    training = desk.begin([f"p{n}" for n in range(40)], shapes=((400, 500),), max_grad_norm=0.5)
    units = training.draw()
    gradients = [torch.full((len(units), 400, 500), 1.0)]  # of norm 447: each is clipped
    if units:
        training.add(gradients, units)
    found = training.finish()[0]
    mean = len(units) * 0.5 / math.sqrt(200_000) / 8
    deviation = training.noise_multiplier * 0.5 / 8
    assert float(found.double().mean()) == pytest.approx(mean, abs=5 * deviation / math.sqrt(200_000))
    assert float(found.double().std()) == pytest.approx(deviation, rel=0.005 * 2)
    assert stats.kstest(((found - mean) / deviation).flatten().numpy(), "norm").pvalue > 1e-6
    training.close()


def test_a_step_without_a_unit_is_noise_only(desk: Any) -> None:
    training = desk.begin([f"p{n}" for n in range(40)], entropy=ones)
    assert training.draw() == []
    training._noise._entropy = system
    training._noise.begin()
    found = torch.cat([part.flatten() for part in training.finish()])
    assert bool(found.isfinite().all())
    assert bool((found != 0).all())
    training.close()
