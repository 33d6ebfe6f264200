"""The layer against a naive loop, and what it must never touch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_umls.plugin import UmlsConfig, UmlsPlugin
from r1core_umls.values import KIND, LinkedConcept, buckets_of, decode, encode, span_kind

from r1core.api import Context, SlotFeatures

torch = pytest.importorskip("torch")
B, T, D, S, BUCKETS = 3, 11, 8, 4, 64


def make_layer(seed: int = 0, **settings: int) -> torch.nn.Module:
    config = UmlsConfig(layer_width=5, buckets=BUCKETS, **settings)
    (spec,) = UmlsPlugin().extra_layer(Context("", config, seed), object())
    assert (spec.name, spec.site, spec.kinds) == ("umls/concepts", "embedding", (KIND,))
    return spec.factory(D)


def random_features(seed: int) -> SlotFeatures:
    rng = np.random.default_rng(seed)
    start = rng.integers(0, T, (B, S))
    end = np.minimum(start + rng.integers(1, 4, (B, S)), T)
    mask = rng.random((B, S)) < 0.7
    values = rng.integers(0, BUCKETS, (B, S, 2)).astype(np.float32)
    values[~mask] = 1e9  # padding may hold anything
    return SlotFeatures(*(torch.from_numpy(array) for array in (start, end, values, mask)))


def naive(layer: torch.nn.Module, slots: SlotFeatures) -> torch.Tensor:
    out = torch.zeros(B, T, D)
    for row in range(B):
        for slot in range(S):
            if slots.mask[row, slot]:
                one, two = (int(value) for value in slots.values[row, slot])
                vector = layer.project.weight @ (layer.table.weight[one] + layer.table.weight[two])
                for token in range(int(slots.start[row, slot]), int(slots.end[row, slot])):
                    out[row, token] += vector
    return out


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_naive_loop(seed: int) -> None:
    layer, slots = make_layer(), random_features(seed)
    torch.testing.assert_close(layer(torch.randn(B, T, D), {KIND: slots}), naive(layer, slots))


def test_zero_outside_spans_and_in_padding() -> None:
    layer, slots = make_layer(), random_features(1)
    out = layer(torch.randn(B, T, D), {KIND: slots})
    for row in range(B):
        for token in range(T):
            covered = ((slots.start[row] <= token) & (token < slots.end[row]) & slots.mask[row]).any()
            assert bool(out[row, token].any()) == bool(covered)
    nothing = SlotFeatures(slots.start[:, :0], slots.end[:, :0], slots.values[:, :0], slots.mask[:, :0])
    assert not layer(torch.randn(B, T, D), {KIND: nothing}).any()


def test_a_later_span_changes_nothing_before_it() -> None:
    layer, slots = make_layer(), random_features(2)
    before = layer(torch.zeros(B, T, D), {KIND: slots})
    changed = slots.values.clone()
    changed[0, 0] = torch.tensor([1.0, 2.0])
    after = layer(torch.zeros(B, T, D), {KIND: SlotFeatures(slots.start, slots.end, changed, slots.mask)})
    first = int(slots.start[0, 0])
    assert torch.equal(before[0, :first], after[0, :first])
    assert torch.equal(before[1:], after[1:])


def test_gradient_reaches_only_the_rows_in_use() -> None:
    layer, slots = make_layer(), random_features(3)
    layer(torch.zeros(B, T, D), {KIND: slots}).square().sum().backward()
    used = set(slots.values[slots.mask].long().flatten().tolist())
    assert set(layer.table.weight.grad.abs().sum(1).nonzero().flatten().tolist()) <= used
    assert layer.project.weight.grad.abs().sum() > 0


def test_dtype_follows_hidden_and_parameters_stay_fp32() -> None:
    layer = make_layer()
    out = layer(torch.zeros(B, T, D, dtype=torch.bfloat16), {KIND: random_features(4)})
    assert (out.dtype, out.shape) == (torch.bfloat16, (B, T, D))
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float32}


def test_weights_derive_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = make_layer(7)
    torch.manual_seed(2)
    two, other = make_layer(7), make_layer(8)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.table.weight, other.table.weight)


def test_no_layer_when_it_is_switched_off() -> None:
    assert UmlsPlugin().extra_layer(Context("", UmlsConfig(layer=False), 0), object()) == []


@given(st.text(min_size=1), st.integers(2, 2**24))
def test_buckets_are_two_different_rows_that_float32_holds(concept_id: str, buckets: int) -> None:
    one, two = buckets_of(concept_id, buckets)
    assert one != two
    assert all(0 <= value < buckets and int(np.float32(value)) == value for value in (one, two))


def test_buckets_never_change_between_releases() -> None:
    # Saved layers are addressed by these numbers.
    assert buckets_of("HP:0001631", 16384) == (6802, 3235)


CONCEPTS = st.builds(
    LinkedConcept,
    st.text(),
    st.text(),
    st.lists(st.text()).map(tuple),
    st.text(),
    st.sampled_from(["exact", "normalised", "abbreviation"]),
    st.lists(st.text()).map(tuple),
)


@settings(deadline=None)
@given(CONCEPTS)
def test_codec_round_trip(value: LinkedConcept) -> None:
    import json

    kind = span_kind(BUCKETS)
    assert kind.decode(json.loads(json.dumps(kind.encode(value)))) == value == decode(encode(value))
    assert kind.feature is not None
    assert len(kind.feature(value)) == kind.width == 2
