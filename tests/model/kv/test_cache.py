"""Models of several families read and write through the packed cache as through the library's exact one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import (
    DeepseekV3Config,
    DynamicCache,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from r1core.errors import R1Error, UserError
from r1core.model.kv.cache import PackedCache, new_cache
from r1core.model.kv.held import Held
from r1core.model.kv.layer import PackedLayer, PackedSlidingLayer

SHAPE = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SHAPE),
    "one head each": lambda: Qwen3Config(**{**SHAPE, "num_key_value_heads": 4}),
    "sliding": lambda: MistralConfig(**SHAPE, sliding_window=150),
    "some sliding": lambda: Gemma3TextConfig(
        **SHAPE, sliding_window=130, layer_types=["sliding_attention", "full_attention"]
    ),
    "latents": lambda: DeepseekV3Config(
        **{k: v for k, v in SHAPE.items() if k != "head_dim"} | {"num_key_value_heads": 4},
        q_lora_rank=None, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=16,
        first_k_dense_replace=2,
    ),
    "gpt2": lambda: GPT2Config(vocab_size=97, n_embd=32, n_layer=2, n_head=4, eos_token_id=None, pad_token_id=0),
}  # fmt: skip
FAMILIES = tuple(CONFIGS)


def model_of(family: str, attention: str = "sdpa") -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(CONFIGS[family](), attn_implementation=attention)
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.data *= 4  # attention that is not nearly uniform
    return model.eval()


def ids_of(tokens: int, rows: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 97, (rows, tokens), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def fed(model: PreTrainedModel, ids: torch.Tensor, cache: object, pieces: list[int]) -> torch.Tensor:
    """Logits of all tokens, read in pieces."""
    parts = ids.split(pieces, 1)
    return torch.cat([model(input_ids=part, past_key_values=cache, use_cache=True).logits for part in parts], 1)


PIECES = [200, 1, 1, 3, 64, 1, 20, 1, 9, *[1] * 20]


@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_bits_are_further_from_the_exact_cache(family: str) -> None:
    model, ids = model_of(family), ids_of(sum(PIECES))
    exact = fed(model, ids, DynamicCache(config=model.config), PIECES)
    errors = [
        float((fed(model, ids, PackedCache(bits, model.config), PIECES) - exact).abs().mean()) for bits in (4, 5, 6)
    ]
    assert errors[0] > errors[1] > errors[2] > 0
    assert errors[2] < 0.02 * float(exact.std())


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_from_codes_gives_what_the_models_eager_attention_gives(family: str) -> None:
    ids = ids_of(sum(PIECES), rows=2)
    asked = {kind: model_of(family, kind) for kind in ("sdpa", "eager")}
    codes, eager = (fed(m, ids, PackedCache(4, m.config), PIECES) for m in asked.values())
    assert torch.allclose(codes, eager, atol=2e-3)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "how",
    [{}, {"do_sample": True}, {"num_beams": 3, "num_return_sequences": 2}, {"prompt_lookup_num_tokens": 3}],
    ids=["greedy", "sampled", "beams", "looked up"],
)
def test_short_texts_are_generated_exactly_as_without_it(family: str, how: dict[str, int]) -> None:
    """Up to 99 tokens stay exact."""
    model, ids = model_of(family), ids_of(40)
    answers = []
    for cache in (DynamicCache(config=model.config), PackedCache(4, model.config)):
        torch.manual_seed(1)
        answers.append(model.generate(ids, max_new_tokens=25, past_key_values=cache, **how))
    assert torch.equal(*answers)


@pytest.mark.parametrize("family", ["llama", "sliding", "some sliding"])
@pytest.mark.parametrize("how", [{"num_beams": 3, "length_penalty": 0.0}, {"num_beams": 1}], ids=["beams", "greedy"])
def test_long_texts_score_what_the_exact_model_gives_them(family: str, how: dict[str, float]) -> None:
    model, ids = model_of(family), ids_of(150, rows=2)
    found = model.generate(
        ids, max_new_tokens=120, past_key_values=PackedCache(6, model.config), return_dict_in_generate=True,
        output_scores=True, **how,
    )  # fmt: skip
    told = model.compute_transition_scores(
        found.sequences, found.scores, getattr(found, "beam_indices", None), normalize_logits=True
    )
    with torch.no_grad():
        exact = model(found.sequences[:, :-1]).logits.log_softmax(-1)
    expected = exact.gather(-1, found.sequences[:, 1:, None])[..., 0][:, 149:]
    assert float((told - expected).abs().mean()) < 0.05
    assert found.sequences.shape[1] == 270


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "latents"])
def test_a_new_token_unpacks_no_layer_even_of_padded_rows(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = model_of(family), ids_of(200, rows=2)
    cache, mask = PackedCache(4, model.config), torch.ones(2, 201, dtype=torch.long)
    mask[1, :30] = 0
    with torch.no_grad():
        model(input_ids=ids, attention_mask=mask[:, :200], past_key_values=cache)

        def refuse(_: Held) -> torch.Tensor:
            raise AssertionError("unpacked")

        monkeypatch.setattr(Held, "read_keys", refuse)
        monkeypatch.setattr(Held, "read_values", refuse)
        model(input_ids=ids[:, :1], attention_mask=mask, past_key_values=cache)


def test_rows_padded_on_the_left_read_as_each_alone() -> None:
    model, ids = model_of("llama"), ids_of(260)
    short = ids[:, 90:]
    padded = torch.cat([torch.zeros(1, 90, dtype=torch.long), short], 1)
    mask = torch.ones(2, 260, dtype=torch.long)
    mask[1, :90] = 0
    both = torch.cat([ids, padded])
    cache, alone = PackedCache(6, model.config), PackedCache(6, model.config)
    for start, stop in ((0, 250), *((at, at + 1) for at in range(250, 260))):
        with torch.no_grad():
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, start:stop]
            logits = model(
                input_ids=both[:, start:stop], attention_mask=mask[:, :stop], position_ids=positions,
                past_key_values=cache,
            ).logits  # fmt: skip
            expected = model(input_ids=short[:, max(0, start - 90) : stop - 90], past_key_values=alone).logits
    assert float((logits[1, -1] - expected[0, -1]).abs().max()) < 0.05 * float(expected.std())


@pytest.mark.parametrize("family", ["llama", "sliding", "some sliding"])
def test_going_back_and_on_is_close_to_never_having_gone(family: str) -> None:
    model, ids, wrong = model_of(family), ids_of(260), ids_of(100, seed=3)
    cache = PackedCache(6, model.config)
    cache.activate_past_recording()
    fed(model, ids[:, :240], cache, [240])
    cache.crop(0)
    fed(model, wrong, cache, [100])
    cache.crop(-100)
    assert cache.get_seq_length() == 240
    logits = fed(model, ids[:, 240:], cache, [1] * 20)
    exact = fed(model, ids, DynamicCache(config=model.config), [260])[:, 240:]
    assert float((logits - exact).abs().mean()) < 0.05 * float(exact.std())


def test_each_kind_of_layer_gets_its_own() -> None:
    layers = PackedCache(4, CONFIGS["some sliding"]()).layers
    assert [type(layer) for layer in layers] == [PackedSlidingLayer, PackedLayer]


def test_a_window_holds_no_more_than_itself() -> None:
    model = model_of("sliding")
    cache = PackedCache(4, model.config)
    fed(model, ids_of(900), cache, [300] * 3)
    assert cache.get_seq_length() == 900
    held = cache.layers[0].states.held
    assert held.length == 149
    assert held.first[0].shape[2] == 0
    assert held.hidden < 64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_long_text_takes_a_third_of_the_bytes(dtype: torch.dtype) -> None:
    config = LlamaConfig(**{**SHAPE, "hidden_size": 64, "head_dim": 64, "max_position_embeddings": 4096})
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    cache, exact = PackedCache(4, config), DynamicCache()
    fed(model, ids_of(2000), cache, [1999, 1])
    fed(model, ids_of(2000), exact, [1999, 1])
    whole = sum(layer.keys.nbytes + layer.values.nbytes for layer in exact.layers)
    assert cache.nbytes / whole < 0.35
    cache.reset()
    assert cache.nbytes == cache.get_seq_length() == 0


def test_training_through_it_is_refused() -> None:
    model = model_of("llama")
    with pytest.raises(R1Error, match="inference"):
        model(input_ids=ids_of(5), past_key_values=PackedCache(4), use_cache=True)


def test_models_that_keep_something_else_are_refused_by_name() -> None:
    from transformers import Zamba2Config

    config = Zamba2Config(num_hidden_layers=2, layer_types=["hybrid", "linear_attention"])
    with pytest.raises(UserError, match="LinearAttentionAndFullAttentionLayer"):
        PackedCache(4, config)


def test_no_bits_give_the_librarys_cache() -> None:
    assert type(new_cache(model_of("llama"), 0)) is DynamicCache
    assert type(new_cache(model_of("llama"), 5)) is PackedCache
    with pytest.raises(UserError, match="7 bits"):
        new_cache(model_of("llama"), 7)
