"""R1's steps in fixed memory give what its steps through growing caches give, over windows, nodes and padding.

Where no GPU is, the same pass stands in for the graph, as in tests/model/test_recorded.py.
"""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache

from r1core.model.kv.cache import PackedCache
from r1core.model.r1 import R1ForCausalLM
from r1core.model.recorded import Recorded, Step, Watch
from r1core.model.recording import memory_for, recording
from r1core.testing import tiny_r1

KINDS = ["exact", "packed"]


def model_of(window: int | None = 90, every: int | None = 5) -> R1ForCausalLM:
    return tiny_r1.model(sliding_window=window, global_every=every, max_position_embeddings=2048)


def cache_of(kind: str) -> Cache:
    return DynamicCache() if kind == "exact" else PackedCache(6)


def ids_of(tokens: int, rows: int = 2) -> torch.Tensor:
    return torch.randint(1, 97, (rows, tokens), generator=torch.Generator().manual_seed(3))


def again(step: Step) -> Step:
    return step


@torch.no_grad()
def read(model: R1ForCausalLM, cache: Cache, ids: torch.Tensor, start: int, padded: int = 0) -> torch.Tensor:
    """Logits of what comes behind `start`, a token at a time."""
    mask = torch.ones_like(ids)
    mask[1, :padded] = 0
    found = []
    for stop in range(start, ids.shape[1] + 1):
        told = {"attention_mask": mask[:, :stop]} if padded else {}
        part = ids[:, 0 if stop == start else stop - 1 : stop]
        found.append(model(input_ids=part, past_key_values=cache, use_cache=True, **told).logits[:, -1])
    return torch.stack(found, 1)


CASES = [
    (130, 230, 37, 90, 5),
    pytest.param(40, 420, 0, 150, 8, marks=pytest.mark.slow),
    pytest.param(400, 1000, 37, 150, 3, marks=pytest.mark.slow),
    pytest.param(120, 300, 20, 2000, 64, marks=pytest.mark.slow),
    pytest.param(300, 420, 0, 100, None, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("start", "stop", "padded", "window", "every"), CASES)
def test_hundreds_of_steps_give_the_logits_of_plain_steps(
    kind: str, start: int, stop: int, padded: int, window: int, every: int | None
) -> None:
    model, ids = model_of(window, every), ids_of(stop)
    plain, fixed = cache_of(kind), cache_of(kind)
    expected = read(model, plain, ids, start, padded)
    with recording(model, fixed, tokens=100, record=again) as told:
        found = read(model, fixed, ids, start, padded)
        assert fixed.layers[0].fixed is not None
    assert told.why == ""
    assert told.replayed > 0.9 * (stop - start)
    assert torch.allclose(found, expected, atol=2e-4 * float(expected.std()))
    assert fixed.get_seq_length() == stop
    behind = [read(model, cache, ids_of(7), 5) for cache in (plain, fixed)]
    assert torch.allclose(*behind, atol=2e-4 * float(expected.std()))
    if kind == "packed":  # an exact cache sorts out at another time
        for one, other in zip(plain.layers, fixed.layers, strict=True):
            assert torch.equal(one.positions, other.positions)
            assert [part.shape for part in one.tensors()] == [part.shape for part in other.tensors()]


@pytest.mark.parametrize(("kind", "how"), [("packed", {}), ("packed", {"num_beams": 2}), ("exact", {"num_beams": 2})])
def test_generate_writes_the_same_inside(kind: str, how: dict[str, int]) -> None:
    """Beams reorder the cache between any two steps, so that none of R1's is recorded."""
    model, ids = model_of(), ids_of(150)
    plain = model.generate(ids, max_new_tokens=25, past_key_values=cache_of(kind), **how)
    cache = cache_of(kind)
    with recording(model, cache, record=again) as told:
        found = model.generate(ids, max_new_tokens=25, past_key_values=cache, **how)
    assert torch.equal(plain, found)
    assert told.replayed == 0 if how else told.replayed > 20


@pytest.mark.parametrize("kind", [*KINDS, "without a window"])
@torch.no_grad()
def test_a_step_stays_in_its_memory_and_asks_the_host_for_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for experts on a CPU, whose loop stands where fused kernels stand on a GPU."""
    from r1core.model.r1.experts import R1Experts

    monkeypatch.setattr(R1Experts, "forward", lambda self, hidden, experts, weights: hidden * weights.sum(1, True))
    model, ids = model_of(None if kind == "without a window" else 90), ids_of(200, rows=1)
    cache = cache_of(kind)
    model(input_ids=ids, past_key_values=cache)
    places: list[list[int]] = []

    def watched(step: Step) -> Step:
        def replay() -> torch.Tensor:
            with Watch() if len(places) % 16 == 0 else nullcontext(Watch()) as watch:
                logits = step()
            assert watch.read == ""
            layers = [layer.keys, layer.values] if kind == "exact" else layer.states.fixed.tensors()
            places.append([part.data_ptr() for part in layers])
            return logits

        return replay

    layer = cache.layers[0]
    steps = Recorded(model.forward, cache, model.device, memory_for(model, cache, 200), watched)
    for at in range(70):
        assert steps.asked({"input_ids": ids[:, at : at + 1], "past_key_values": cache})
        steps(ids[:, at : at + 1])
    assert steps.outcome.why == ""
    assert sum(place != before for place, before in zip(places[1:], places, strict=False)) == 0
    assert cache.get_seq_length() == 270


@torch.no_grad()
def test_what_is_no_step_of_r1_runs_as_ever() -> None:
    model, ids = model_of(), ids_of(200)
    cache = PackedCache(4)
    model(input_ids=ids, past_key_values=cache)
    steps = Recorded(model.forward, cache, model.device, memory_for(model, cache), again)
    step = {"input_ids": ids[:, :1], "past_key_values": cache}
    nothing = torch.ones(2, 201)
    nothing[0, -1] = 0
    assert not steps.asked({**step, "attention_mask": nothing})
    assert steps.asked(step)
    model.config.max_position_embeddings = 200
    full = Recorded(model.forward, cache, model.device, memory_for(model, cache), again)
    assert not full.asked(step)
