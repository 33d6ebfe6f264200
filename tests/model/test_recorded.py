"""Steps in fixed memory give what steps through a growing cache give, and do nothing that a recording would not repeat.

Where no GPU is, `again` stands in for the graph: it runs the same pass over the same fixed memory each time.
benchmarks/kv_cache_gpu.py holds replayed graphs against plain steps.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import DynamicCache, GPT2Config, LlamaConfig, MistralConfig, PreTrainedModel, Qwen3Config
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from r1core.errors import R1Error
from r1core.model.kv.cache import PackedCache
from r1core.model.kv.layout import BLOCK
from r1core.model.recorded import Recorded, Step, Watch
from r1core.model.recording import memory_for, recording, refusal

SHAPE = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "one head each": lambda: Qwen3Config(**{**SHAPE, "num_key_value_heads": 4}),
    "gpt2": lambda: GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, eos_token_id=None),
}  # fmt: skip


def model_of(family: str, **changed: Any) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config = CONFIGS[family]()
        config.update(changed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.data *= 4  # attention that is not nearly uniform
    return model.eval()


def ids_of(tokens: int, rows: int = 1) -> torch.Tensor:
    return torch.randint(1, 97, (rows, tokens), generator=torch.Generator().manual_seed(3))


def again(step: Step) -> Step:
    return step


@torch.no_grad()
def read(model: PreTrainedModel, cache: PackedCache, ids: torch.Tensor, start: int, mask: Any = None) -> torch.Tensor:
    """Logits of what comes behind `start`, a token at a time."""
    told = {}
    found = []
    for stop in (start, *range(start + 1, ids.shape[1] + 1)):
        begin = 0 if stop == start else stop - 1
        if mask is not None:
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, begin:stop]
            told = {"attention_mask": mask[:, :stop], "position_ids": positions}
        found.append(model(input_ids=ids[:, begin:stop], past_key_values=cache, use_cache=True, **told).logits[:, -1])
    return torch.stack(found, 1)


CASES = [
    ("llama", 30, 90, 0),
    ("llama", 99, 140, 25),
    pytest.param("llama", 300, 300, 0, marks=pytest.mark.slow),
    pytest.param("one head each", 99, 200, 25, marks=pytest.mark.slow),
    pytest.param("gpt2", 200, 200, 25, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("family", "start", "count", "padded"), CASES)
def test_hundreds_of_steps_give_the_logits_of_plain_steps(family: str, start: int, count: int, padded: int) -> None:
    """Over several blocks, and over the end of the room that there is at first."""
    model, ids = model_of(family), ids_of(start + count, rows=2)
    mask = None
    if padded:
        mask = torch.ones_like(ids)
        mask[1, :padded] = 0
    plain, fixed = PackedCache(4, model.config), PackedCache(4, model.config)
    expected = read(model, plain, ids, start, mask)
    with recording(model, fixed, tokens=40, record=again) as told:
        found = read(model, fixed, ids, start, mask)
        assert fixed.layers[0].states.fixed is not None
    assert told.why == ""
    assert told.replayed > 0.9 * count
    assert torch.allclose(found, expected, atol=2e-5)
    assert fixed.get_seq_length() == ids.shape[1]
    assert fixed.nbytes == plain.nbytes
    for one, other in zip(plain.layers, fixed.layers, strict=True):
        assert torch.allclose(one.states.held.read_keys(), other.states.held.read_keys(), atol=1e-4)


@pytest.mark.parametrize(
    "how",
    [{"do_sample": True}, {"num_beams": 3, "num_return_sequences": 2}, {"prompt_lookup_num_tokens": 3}],
    ids=["sampled", "beams", "looked up"],
)
def test_generate_writes_the_same_inside_and_goes_on_behind(how: dict[str, int]) -> None:
    model, ids = model_of("llama"), ids_of(90, rows=1 if "prompt_lookup_num_tokens" in how else 2)
    answers, caches = [], (PackedCache(4, model.config), PackedCache(4, model.config))
    for cache, record in zip(caches, (None, again), strict=True):
        torch.manual_seed(1)
        if record is None:
            answers.append(model.generate(ids, max_new_tokens=40, past_key_values=cache, **how))
        else:
            with recording(model, cache, record=record):
                answers.append(model.generate(ids, max_new_tokens=40, past_key_values=cache, **how))
    assert torch.equal(*answers)
    assert "forward" not in vars(model)
    behind = [read(model, cache, ids_of(9, rows=cache.layers[0].states.held.newest[0].shape[0]), 5) for cache in caches]
    assert torch.allclose(*behind, atol=2e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@torch.no_grad()
def test_a_step_reads_and_writes_the_same_memory_and_asks_the_host_for_nothing(family: str) -> None:
    model, ids = model_of(family), ids_of(150)
    cache = PackedCache(4, model.config)
    model(input_ids=ids, past_key_values=cache)
    places: list[list[int]] = []

    def watched(step: Step) -> Step:
        def replay() -> torch.Tensor:
            places.append([part.data_ptr() for layer in cache.layers for part in layer.tensors()])
            with Watch() if len(places) % 16 == 1 else nullcontext(Watch()) as watch:
                logits = step()
            assert watch.read == ""
            return logits

        return replay

    steps = Recorded(model.forward, cache, model.device, memory_for(model, cache, 300), watched)
    for at in range(BLOCK + 5):
        assert steps.asked({"input_ids": ids[:, at : at + 1], "past_key_values": cache})
        steps(ids[:, at : at + 1])
    assert steps.outcome.replayed == BLOCK + 4
    assert all(place == places[0] for place in places)
    assert cache.get_seq_length() == 150 + BLOCK + 5


@torch.no_grad()
def test_what_cannot_be_recorded_runs_as_ever_in_between() -> None:
    model, ids = model_of("llama"), ids_of(300)
    logits = []
    for record in (False, True):
        cache = PackedCache(4, model.config)
        model(input_ids=ids[:, :150], past_key_values=cache)
        found = []

        def run(start: int, stop: int, cache: PackedCache = cache, found: list[torch.Tensor] = found) -> None:
            found.append(model(input_ids=ids[:, start:stop], past_key_values=cache, use_cache=True).logits)

        with recording(model, cache if record else DynamicCache(), record=again):
            for at in range(150, 170):
                run(at, at + 1)
            run(170, 180)
            for at in range(180, 200):
                run(at, at + 1)
            cache.crop(-30)
            for at in range(170, 180):
                run(at, at + 1)
            model(input_ids=ids[:, :20])  # without a cache
            run(180, 181)
        logits.append(torch.cat(found, 1))
    assert torch.allclose(*logits, atol=2e-5)


@torch.no_grad()
def test_several_recordings_are_open_at_once_and_closed_in_any_order() -> None:
    model, ids = model_of("llama"), ids_of(130)
    caches = [PackedCache(4, model.config) for _ in range(3)]
    for cache in caches:
        model(input_ids=ids, past_key_values=cache)
    first, second = (recording(model, cache, record=again) for cache in caches[:2])
    told = [first.__enter__(), second.__enter__()]
    logits = [[model(input_ids=ids[:, at : at + 1], past_key_values=c).logits for c in caches] for at in range(3)]
    assert [outcome.replayed for outcome in told] == [2, 2]
    first.__exit__(None, None, None)
    logits += [[model(input_ids=ids[:, at : at + 1], past_key_values=c).logits for c in caches] for at in range(3, 6)]
    assert [outcome.replayed for outcome in told] == [2, 5]
    second.__exit__(None, None, None)
    assert "forward" not in vars(model)
    for one, other, plain in logits:
        assert torch.allclose(one, plain, atol=2e-5)
        assert torch.allclose(other, plain, atol=2e-5)


@torch.no_grad()
def test_a_step_that_fails_leaves_the_cache_as_it_was() -> None:
    model, ids = model_of("llama"), ids_of(150)
    cache = PackedCache(4, model.config)
    model(input_ids=ids, past_key_values=cache)

    def broken(**given: Any) -> Any:
        model(**given)
        raise R1Error("torn")

    steps = Recorded(broken, cache, model.device, memory_for(model, cache), again)
    assert steps.asked({"input_ids": ids[:, :1], "past_key_values": cache})
    with pytest.raises(R1Error, match="torn"):
        steps(ids[:, :1])
    assert cache.get_seq_length() == 150
    assert cache.layers[0].states.fixed is None


@pytest.mark.parametrize(("kind", "why"), [("unpacks", "unpacked keys or values"), ("masks", "a mask beside")])
@torch.no_grad()
def test_an_attention_that_needs_more_than_codes_goes_on_without(
    kind: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attend(module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **how: Any) -> Any:
        if kind == "unpacks":
            return library(module, query, key + 0, value + 0, mask, **how)
        bias = torch.zeros(1, 1, query.shape[2], key.shape[2])
        return library(module, query, key, value, bias if query.shape[2] == 1 else mask, **how)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", attend)
    model, ids = model_of("one head each"), ids_of(130)
    texts, how = [], {"max_new_tokens": 70, "do_sample": False}
    for within in (nullcontext, lambda cache: recording(model, cache, tokens=80, record=again)):
        cache = PackedCache(4, model.config)
        with within(cache) as told:
            texts.append(model.generate(ids, past_key_values=cache, **how))
    assert torch.equal(*texts)
    assert why in told.why
    assert told.replayed == 0
    assert cache.get_seq_length() == 130 + 69


def test_what_is_refused_is_named() -> None:
    model = model_of("llama")
    cache = PackedCache(4, model.config)
    assert refusal(model, cache) is None
    with recording(model, cache) as told:
        assert told.why == "there is no GPU"
    with recording(model, cache, tokens=5, record=again) as told:
        assert "5 tokens" in told.why
    assert "DynamicCache" in str(refusal(model, DynamicCache()))
    assert "PackedSlidingLayer" in str(refusal(model, PackedCache(4, MistralConfig(**SHAPE, sliding_window=150))))
    model.set_attn_implementation("eager")
    assert "scaled_dot_product_attention" in str(refusal(model, cache))
    hooked = model_of("llama")
    hooked.model.layers[0].register_forward_hook(lambda *_: None)
    assert "hooks" in str(refusal(hooked, cache))


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}


@pytest.mark.parametrize(
    ("family", "changed"), [("gpt2", {"pad_token_id": 0}), ("llama", {"rope_parameters": DYNAMIC})]
)
@torch.no_grad()
def test_a_model_in_which_the_host_reads_a_tensor_is_noticed_and_goes_on(family: str, changed: dict[str, Any]) -> None:
    model, ids = model_of(family, **changed), ids_of(130)
    cache = PackedCache(4, model.config)
    model(input_ids=ids, past_key_values=cache)
    steps = Recorded(model.forward, cache, model.device, memory_for(model, cache), again)
    assert steps.asked({"input_ids": ids[:, :1], "past_key_values": cache})
    steps(ids[:, :1])
    assert "_local_scalar_dense" in steps.outcome.why
    assert not steps.asked({"input_ids": ids[:, :1], "past_key_values": cache})
    assert cache.get_seq_length() == 131
    assert cache.layers[0].states.fixed is None


@torch.no_grad()
def test_passes_that_are_no_step_are_told_from_steps() -> None:
    model, ids = model_of("llama"), ids_of(150)
    cache = PackedCache(4, model.config)
    model(input_ids=ids, past_key_values=cache)
    steps = Recorded(model.forward, cache, model.device, memory_for(model, cache))
    step = {"input_ids": ids[:, :1], "past_key_values": cache, "use_cache": True}
    assert steps.asked(step)
    assert steps.asked({**step, "attention_mask": torch.ones(1, 151), "logits_to_keep": 1, "labels": None})
    for other in (
        {"input_ids": ids[:, :2]}, {"input_ids": ids[:, :1].expand(2, 1)}, {"past_key_values": DynamicCache()},
        {"attention_mask": torch.ones(1, 150)}, {"attention_mask": torch.zeros(1, 1, 1, 151)},
        {"output_hidden_states": True}, {"labels": ids[:, :1]}, {"token_type_ids": ids[:, :1]}, {"use_cache": False},
        {"inputs_embeds": torch.zeros(1, 1, 32)}, {"position_ids": ids[:, :2]},
    ):  # fmt: skip
        assert not steps.asked({**step, **other}), other
    with torch.enable_grad():
        assert not steps.asked(step)
