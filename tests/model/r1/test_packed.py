"""R1 over a packed cache: what it sees, what it answers, what it holds, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from r1core.api import UserError
from r1core.model.kv.cache import PackedCache, new_cache
from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.packed import PackedR1Layer, Seen
from r1core.model.r1.reach import NOWHERE
from r1core.testing import tiny_r1

WINDOW, EVERY = 90, 5
PIECES = [300, 1, 1, 20, 1, 64, 1, 150, *[8] * 26, *[1] * 3]


def made(**changed: object) -> R1ForCausalLM:
    return tiny_r1.model(
        **{"sliding_window": WINDOW, "global_every": EVERY, "max_position_embeddings": 4096, **changed}
    )


@torch.no_grad()
def fed(
    model: R1ForCausalLM, ids: torch.Tensor, cache: object, mask: torch.Tensor, pieces: list[int] = PIECES
) -> torch.Tensor:
    """Logits of all tokens, read in pieces."""
    out, start = [], 0
    for part in ids.split(pieces, 1):
        start += part.shape[1]
        out.append(model(part, attention_mask=mask[:, :start], past_key_values=cache, use_cache=True).logits)
    return torch.cat(out, 1)


def padded(rows: list[int], length: int) -> torch.Tensor:
    """A mask with so many tokens of padding before each row."""
    return torch.stack([(torch.arange(length) >= gap).long() for gap in rows])


@pytest.mark.parametrize(("every", "gaps"), [(EVERY, [0, 3, 277]), (None, [0])])
def test_more_bits_are_nearer_to_the_exact_cache(every: int | None, gaps: list[int]) -> None:
    model, length = made(global_every=every), sum(PIECES)
    ids, mask = tiny_r1.tokens(len(gaps), length), padded(gaps, length)
    exact = fed(model, ids, DynamicCache(), mask)
    real = mask[..., None].bool()
    errors = [float(((fed(model, ids, PackedCache(bits), mask) - exact) * real).abs().max()) for bits in (4, 6)]
    assert 0 < errors[1] < errors[0]
    assert errors[1] < 0.05 * float(exact.std())


def test_every_row_sees_its_window_and_its_nodes_once() -> None:
    """The keys of an exact cache that drops nothing, by position, against those that are held."""
    model, gaps, length = made(), [0, 3, 277], sum(PIECES)
    ids, mask = tiny_r1.tokens(3, length), padded(gaps, length)
    wide = made(sliding_window=4000)
    wide.load_state_dict(model.state_dict())
    all_of, packed = DynamicCache(), PackedCache(6)
    fed(wide, ids, all_of, mask)
    fed(model, ids, packed, mask)
    layer, right = packed.layers[0], all_of.layers[0]
    assert isinstance(layer, PackedR1Layer)
    positions = layer.positions
    assert positions is not None
    far = layer._far()
    assert far is not None
    assert far.blocks is not None  # nodes are packed too
    keys = torch.cat([far.read_keys(), layer.states.held.read_keys()], 2)
    values = torch.cat([far.read_values(), layer.states.held.read_values()], 2)
    for row, gap in enumerate(gaps):
        held = positions[row][positions[row] > NOWHERE].tolist()
        last = length - gap - 1
        needed = {p for p in range(last + 1) if last + 1 - p < WINDOW or p % EVERY == EVERY - 1}
        assert len(set(held)) == len(held)
        assert needed <= set(held)
        assert len(held) <= len(needed) + 64 + 96
        at = torch.tensor(held) + gap
        slots = (positions[row] > NOWHERE).nonzero()[:, 0]
        for mine, exact in ((keys, right.keys), (values, right.values)):
            apart = (mine[row][:, slots] - exact[row][:, at]).abs().max()
            assert float(apart) < 0.05 * float(exact[row][:, at].abs().max())


def test_decoding_unpacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, cache, ids = made(), PackedCache(4), tiny_r1.tokens(1, 500)
    fed(model, ids, cache, torch.ones(1, 500), [500])
    seen = []
    attend = Seen.attend
    monkeypatch.setattr(Seen, "attend", lambda self, *given: seen.append(len(self.parts)) or attend(self, *given))
    monkeypatch.setattr("r1core.model.kv.states.Held.read_keys", lambda _: pytest.fail("unpacked"))
    with torch.no_grad():
        model(ids[:, :1], attention_mask=torch.ones(1, 501), past_key_values=cache, use_cache=True)
    assert seen == [2, 2]


@pytest.mark.parametrize("how", [{}, {"do_sample": True}, {"num_beams": 3}], ids=["greedy", "sampled", "beams"])
@pytest.mark.parametrize("window", [WINDOW, None])
def test_padded_rows_are_generated_as_over_the_exact_cache(how: dict[str, object], window: int | None) -> None:
    """What is packed is rounded to 6 bits, which moves no choice here."""
    model, mask = made(sliding_window=window), padded([0, 40], 250)
    answers = []
    for cache in (None, PackedCache(6)):
        torch.manual_seed(0)
        answers.append(
            model.generate(
                tiny_r1.tokens(2, 250), attention_mask=mask, max_new_tokens=40, pad_token_id=0,
                **how, **({} if cache is None else {"past_key_values": cache}),
            )
        )  # fmt: skip
    assert torch.equal(*answers)


def test_it_holds_a_small_part_of_exact_keys_and_values() -> None:
    """Bytes of all storages; the exact cache that drops nothing is what they are compared with."""
    model = made(global_every=64, num_key_value_heads=1, num_attention_heads=1, hidden_size=64).bfloat16()
    length = 4000
    cache = PackedCache(4)
    fed(model, tiny_r1.tokens(1, length), cache, torch.ones(1, length), [length])
    exact = 2 * 2 * 2 * length * 64
    kept = WINDOW + 64 + 95 + length // 64
    assert cache.nbytes < exact * 1.2 * kept / length
    assert cache.nbytes < 0.08 * exact


def test_a_cache_is_emptied_and_not_cropped() -> None:
    model, cache, ids = made(), PackedCache(4), tiny_r1.tokens(1, 300)
    first = fed(model, ids, cache, torch.ones(1, 300), [299, 1])
    with pytest.raises(NotImplementedError, match="cannot be cropped"):
        cache.layers[0].crop(-3)
    cache.reset()
    assert cache.nbytes == cache.get_seq_length() == 0
    assert torch.equal(fed(model, ids, cache, torch.ones(1, 300), [299, 1]), first)


def test_several_answers_in_one_row_and_what_they_cannot_hide() -> None:
    model, ids, least = made(), tiny_r1.tokens(1, 600), torch.finfo(torch.float32).min
    for length in (80, 600):
        cache = new_cache(model, 6)
        mask = torch.zeros(1, 1, 2, length + 2)
        mask[0, 0, 0, -1] = mask[0, 0, 1, -2] = least
        given = {"position_ids": torch.tensor([[length, length]]), "past_key_values": cache, "use_cache": True}
        with torch.no_grad():
            model(ids[:, :length], past_key_values=cache, use_cache=True)
            found = model(ids[:, :2], attention_mask=mask, **given).logits[0]
            right = [model(torch.cat([ids[:, :length], ids[:, at : at + 1]], 1)).logits[0, -1] for at in (0, 1)]
            assert torch.allclose(found, torch.stack(right), atol=5e-3)
            if cache.layers[0].dropped:
                mask = torch.zeros(1, 1, 2, length + 4).index_fill(3, torch.arange(length - 100), least)
                with pytest.raises(UserError, match="before R1's window of 90 tokens"):
                    model(ids[:, :2], attention_mask=mask, **given)
    assert cache.layers[0].dropped
