"""R1 as a user of the library meets it: generating, caching, padding, training, saving, adapters."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from r1core.data.packing import SHARED, Layout, pack_rows
from r1core.data.tokens import Encoded
from r1core.model.adapter import add_adapter
from r1core.model.kv.cache import PackedCache
from r1core.model.load import check_packing
from r1core.model.r1 import R1ForCausalLM, reach
from r1core.model.row_gradients import RowGradients
from r1core.model.scores import logits_at
from r1core.recipe.training import Adapter
from r1core.testing.tiny_r1 import config, model, tokens


@pytest.mark.parametrize("slack", [2, 256])
def test_token_by_token_gives_the_logits_of_one_pass(slack: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "SLACK", slack)
    made, ids = model(), tokens(2, 60)
    whole = made(ids).logits
    cache = DynamicCache()
    parts = [made(part, past_key_values=cache, use_cache=True).logits for part in ids.split([20, 7, *[1] * 33], dim=1)]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)
    kept = cache.layers[0].keys.shape[2]
    assert cache.get_seq_length() == 60
    assert kept <= 8 + 60 // 4 + slack


def test_a_token_is_moved_by_what_it_can_see_only() -> None:
    made, ids = model(num_hidden_layers=1).double(), tokens(1, 40)
    right = made(ids).logits
    for place in range(39):
        other = ids.clone()
        other[0, place] = (other[0, place] + 1) % 97
        moved = (made(other).logits - right).abs().amax(-1)[0] > 1e-9  # other rows of a product round otherwise
        visible = [q for q in range(40) if q >= place and (q - place < 8 or place % 4 == 3)]
        assert moved.nonzero().flatten().tolist() == visible


@pytest.mark.parametrize("how", [{"do_sample": False}, {"num_beams": 3, "do_sample": False}])
def test_left_padding_changes_no_answer(how: dict[str, object]) -> None:
    made, ids = model(), tokens(2, 14)
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    both = made.generate(ids, attention_mask=mask, max_new_tokens=15, pad_token_id=0, **how)
    alone = made.generate(ids[:1, 5:], max_new_tokens=15, pad_token_id=0, **how)
    other = made.generate(ids[1:], max_new_tokens=15, pad_token_id=0, **how)
    assert both[0, 5:].tolist() == alone[0].tolist()
    assert both[1].tolist() == other[0].tolist()


@pytest.mark.parametrize("hole", [[5], [0, 1, 7, 8, 20], [29]])
def test_a_token_that_is_masked_out_is_as_good_as_not_there(hole: list[int]) -> None:
    made, ids = model(), tokens(1, 30)
    mask = torch.ones_like(ids)
    mask[0, hole] = 0
    kept = mask[0].bool()
    assert torch.allclose(made(ids, attention_mask=mask).logits[:, kept], made(ids[:, kept]).logits, atol=1e-5)


def test_beams_find_what_a_search_without_a_cache_finds() -> None:
    made, ids = model(), tokens(1, 12)
    how = {"num_beams": 3, "do_sample": False, "max_new_tokens": 12, "pad_token_id": 0}
    assert torch.equal(made.generate(ids, **how), made.generate(ids, use_cache=False, **how))


def test_sampling_repeats_under_a_seed() -> None:
    made, ids = model(), tokens(2, 6)
    torch.manual_seed(3)
    one = made.generate(ids, do_sample=True, max_new_tokens=10, pad_token_id=0)
    torch.manual_seed(3)
    assert torch.equal(one, made.generate(ids, do_sample=True, max_new_tokens=10, pad_token_id=0))


def gradients(made: R1ForCausalLM, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    made.zero_grad()
    made(ids, labels=ids).loss.backward()
    return {name: weight.grad.clone() for name, weight in made.named_parameters()}


def test_every_weight_is_trained_and_checkpointing_changes_no_gradient() -> None:
    made, ids = model().train(), tokens(2, 30)
    right = gradients(made, ids)
    assert all(float(gradient.abs().max()) > 0 for gradient in right.values())
    made.activation_checkpointing_enable()
    for name, gradient in gradients(made, ids).items():
        assert torch.allclose(gradient, right[name], atol=1e-6), name


def test_checkpoints_leave_no_graph_of_the_routers_losses_behind() -> None:
    made, ids = model().train(), tokens(2, 30)
    made.activation_checkpointing_enable()
    made(ids, labels=ids).loss.backward()
    assert [block.losses for block in made.feed_forwards()] == [None, None]
    assert made.batch_loss() is None


def test_checkpoints_that_lose_the_routers_gradient_are_refused() -> None:
    made, ids = model().train(), tokens(2, 30)
    made.activation_checkpointing_enable({"use_reentrant": True})
    made.enable_input_require_grads()
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        made(ids, labels=ids)


def test_a_pass_in_training_whose_loss_nobody_took_is_in_no_later_loss() -> None:
    made, ids = model().requires_grad_(False), tokens(2, 30)
    right = float(made(ids, labels=ids).loss)
    made.train()
    made(ids)
    made.eval()
    out = made(ids, labels=ids)
    assert (float(out.loss), out.aux_loss) == (right, None)


def test_a_configuration_that_was_changed_afterwards_is_checked_again() -> None:
    changed = config()
    changed.sliding_window = 0
    with pytest.raises(ValueError, match="sliding_window = 0"):
        R1ForCausalLM(changed)


def test_balancing_counts_only_what_is_read_inside() -> None:
    made, ids = model().train(), tokens(2, 30)
    made(ids)
    with made.balancing() as move, torch.no_grad():
        assert not any(router.load.any() for router in made.routers())
        made(ids)
        assert [int(router.load.sum()) for router in made.routers()] == [2 * 60] * 2
        with pytest.raises(ValueError, match="a pace of 2: give 0 to 1"):
            move(2)
    assert made.training
    assert not any(router.load.any() or router.bias_steps.any() for router in made.routers())


def test_the_routers_loss_is_in_the_loss_where_it_trains() -> None:
    made, ids = model(), tokens(2, 30)
    assert made(ids, labels=ids).aux_loss is None
    made.train()
    out = made(ids, labels=ids)
    logits = out.logits[:, :-1].flatten(0, 1)
    plain = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten())
    assert float(out.loss.detach()) == pytest.approx(float(plain.detach() + out.aux_loss.detach()), rel=1e-5)
    assert float(out.aux_loss.detach()) > 0
    assert made.batch_loss() is None, "it is given once"
    copy.deepcopy(made)


def test_steps_bring_the_load_together() -> None:
    torch.manual_seed(0)
    made = R1ForCausalLM(config(router_bias_rate=0.3, num_hidden_layers=1)).train()
    with torch.no_grad():
        made.feed_forwards()[0].router.weight.mul_(30)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-4)
    router = made.feed_forwards()[0].router
    spreads = []
    for step in range(60):
        ids = torch.randint(0, 97, (16, 64), generator=torch.Generator().manual_seed(step))
        made(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        load = router.load.double()
        spreads.append(float(load.std(correction=0) / load.mean()))
        made.after_step()
    assert sum(spreads[-5:]) < 0.5 * 5 * spreads[0]


def test_it_is_saved_and_loaded_by_the_auto_class(tmp_path) -> None:
    made = model()
    made.feed_forwards()[0].router.bias_steps += 3
    made.save_pretrained(tmp_path)
    read = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert isinstance(read, R1ForCausalLM)
    ids = tokens(1, 20)
    assert torch.equal(read.feed_forwards()[0].router.bias_steps, made.feed_forwards()[0].router.bias_steps)
    assert torch.allclose(read(ids).logits, made(ids).logits, atol=1e-6)


def test_a_new_layer_across_groups_changes_nothing() -> None:
    torch.manual_seed(0)
    made = R1ForCausalLM(config()).eval()
    without = R1ForCausalLM(config(adaptation_rank=0)).eval()
    without.load_state_dict({name: value for name, value in made.state_dict().items() if "adaptation" not in name})
    ids = tokens(1, 20)
    assert torch.equal(made(ids).logits, without(ids).logits)


def test_peft_adapts_it_and_starts_from_the_same_logits() -> None:
    made, ids = model(), tokens(1, 20)
    right = made(ids).logits
    adapted = get_peft_model(made, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    assert torch.allclose(adapted(ids).logits, right, atol=1e-6)
    adapted(ids, labels=ids).loss.backward()
    assert all(weight.grad is not None for name, weight in adapted.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("layout", [SHARED, Layout(share=False)])
def test_packed_rows_are_seen_as_alone_under_a_window(layout: Layout) -> None:
    made = model(vocab_size=400)
    body = torch.randint(10, 399, (4, 30), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [Encoded(f"r{i}", (5, 6, 7, *row[: 14 + 3 * i]), (*row[20:24], 2), ()) for i, row in enumerate(body)]
    check_packing(made, rows, {}, "fp32", layout)
    together = logits_at(made, pack_rows(rows, {}, torch.float32, replace(layout, multiple=1)))
    alone = []
    for row in rows:
        logits = made(torch.tensor([row.prompt + row.response])).logits[0]
        alone.append(logits[len(row.prompt) - 1 : -1])
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_the_gradient_of_one_row_is_that_of_the_row_alone() -> None:
    base = model(sliding_window=64).requires_grad_(False)
    made = add_adapter(base, Adapter(rank=4), seed=0).model.train()
    named = [(name, weight) for name, weight in made.named_parameters() if weight.requires_grad]
    for _, weight in named:
        weight.data += torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) / 20
    assert any("adaptation" in name for name, _ in named)
    ids = tokens(3, 12)
    rows = RowGradients(made, named)
    with rows.of(3):
        made(ids).logits.logsumexp(-1).sum().backward()
    taken = rows.take()
    for row in range(3):
        alone = torch.autograd.grad(made(ids[row : row + 1]).logits.logsumexp(-1).sum(), [w for _, w in named])
        for mine, right in zip(taken, alone, strict=True):
            assert torch.allclose(mine[row], right, atol=1e-4)


def test_caches_of_other_models_and_kinds_are_refused() -> None:
    made, ids = model(), tokens(1, 10)
    small = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    cache = LlamaForCausalLM(small)(ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="holds keys of another model"):
        made(ids, past_key_values=cache)
    deeper = DynamicCache()
    model(num_hidden_layers=3)(ids, past_key_values=deeper)
    with pytest.raises(ValueError, match="an R1 with 3 layers, and this one has 2"):
        made(ids, past_key_values=deeper)
    with pytest.raises(ValueError, match="does not keep its keys in a StaticCache"):
        made(ids, past_key_values=StaticCache(config=small, max_cache_len=64))
    used = DynamicCache()
    made(ids, past_key_values=used)
    with pytest.raises(NotImplementedError, match="generate without assistant_model"):
        used.layers[0].crop(-1)
    with pytest.raises(ValueError, match="holds 1 rows, and 2 are given"):
        made(tokens(2, 1), past_key_values=used)
    with pytest.raises(ValueError, match="what a window of 8 with a node every 4 keeps, and this R1 has a window of 6"):
        model(sliding_window=6)(ids, past_key_values=used)
    with pytest.raises(ValueError, match="and this R1 has no window"):
        model(sliding_window=None)(ids, past_key_values=used)
    packed = PackedCache(4)
    made.requires_grad_(False)(ids, past_key_values=packed)
    with pytest.raises(ValueError, match="and this R1 has no window"):
        model(sliding_window=None)(ids, past_key_values=packed)
    whole = DynamicCache()
    model(sliding_window=None)(ids, past_key_values=whole)
    with pytest.raises(ValueError, match=r"another model \(2 heads, 8 wide\)"):
        model(sliding_window=None, head_dim=4)(ids, past_key_values=whole)


def test_a_context_past_the_limit_is_refused() -> None:
    made = model(max_position_embeddings=50)
    with pytest.raises(ValueError, match="51 tokens, and this model has max_position_embeddings = 50"):
        made(tokens(1, 51))
    cache = DynamicCache()
    made(tokens(1, 50), past_key_values=cache)
    with pytest.raises(ValueError, match="51 tokens"):
        made(tokens(1, 1), past_key_values=cache)
