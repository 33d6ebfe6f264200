"""What a token of R1 sees, against loops over positions; in plain, masked, chunked and block form."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from r1core.model.r1 import attention, flex
from r1core.model.r1.reach import Reach, reach
from r1core.testing.tiny_r1 import config, model, tokens

WINDOW, EVERY = 10, 4


def seen(positions: list[int], window: int, every: int | None, sequence: list[int]) -> torch.Tensor:
    """The rule in plain Python, (T, T); a position of -1 is padding."""
    size = len(positions)
    table = torch.zeros(size, size, dtype=torch.bool)
    for q in range(size):
        for k in range(size):
            node = every is not None and positions[k] % every == every - 1
            near = positions[q] - positions[k] < window
            real = positions[q] >= 0 and positions[k] >= 0 and sequence[q] == sequence[k]
            table[q, k] = real and positions[k] <= positions[q] and (near or node)
    return table


def of(
    positions: torch.Tensor | None,
    mask: torch.Tensor | None,
    shape: tuple[int, int],
    every: int | None = EVERY,
    window: int = WINDOW,
) -> Reach:
    found, _ = reach(positions, mask, shape=shape, device=torch.device("cpu"), kept=None, window=window, every=every)
    return found


PADDED = torch.tensor([[0] * 7 + [1] * 33, [1] * 40])
PACKED = torch.cat([torch.arange(18), torch.arange(22)])[None]


@pytest.mark.parametrize("every", [EVERY, None])
def test_a_row_of_one_sequence(every: int | None) -> None:
    found = of(None, None, (1, 40), every)
    assert found.plain
    assert torch.equal(found.mask[0, 0], seen(list(range(40)), WINDOW, every, [0] * 40))


def test_padding_moves_no_position_and_is_seen_by_nobody() -> None:
    found = of(None, PADDED, (2, 40))
    right = seen([-1] * 7 + list(range(33)), WINDOW, EVERY, [0] * 40)
    assert torch.equal(found.mask[0, 0, 7:], right[7:])
    assert torch.equal(found.mask[1, 0], seen(list(range(40)), WINDOW, EVERY, [0] * 40))


def test_packed_sequences_do_not_see_one_another_and_count_their_own_nodes() -> None:
    found = of(PACKED, None, (1, 40))
    assert not found.plain
    assert torch.equal(found.mask[0, 0], seen(PACKED[0].tolist(), WINDOW, EVERY, [0] * 18 + [1] * 22))


def test_a_mask_of_the_callers_is_never_widened() -> None:
    own = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0)) < 0.7
    found = of(torch.arange(40)[None], own, (1, 40))
    assert torch.equal(found.mask[0, 0], seen(list(range(40)), WINDOW, EVERY, [0] * 40) & own[0, 0])


def test_a_mask_of_three_dimensions_is_refused() -> None:
    with pytest.raises(ValueError, match="give \\(batch, tokens\\) or \\(batch, 1, queries, keys\\)"):
        of(None, torch.ones(1, 40, 40), (1, 40))


CASES = {"plain": (None, None, 1), "later": (torch.arange(37, 397)[None], None, 1),
         "padded": (None, PADDED.repeat_interleave(9, 1), 2),
         "packed": (torch.cat([torch.arange(150), torch.arange(210)])[None], None, 1)}  # fmt: skip


def parts(found: Reach) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values for it."""
    torch.manual_seed(0)
    batch, new = found.queries.shape
    return tuple(torch.randn(batch, heads, new, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2, 2))  # type: ignore[return-value]


def plainly(given: tuple[torch.Tensor, ...], found: Reach) -> torch.Tensor:
    return functional.scaled_dot_product_attention(*given, attn_mask=found.mask, scale=0.3, enable_gqa=True)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("window", [30, 140])
def test_chunks_are_the_same_as_a_whole_mask(case: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    positions, mask, batch = CASES[case]
    found = of(positions, mask, (batch, 360), 16, window)
    given = parts(found)
    monkeypatch.setattr(attention, "CHUNK", 50)
    out = attention.over_long(*given, found, 0.3)
    real = (found.queries >= 0)[:, None, :, None]
    assert torch.allclose(out * real, plainly(given, found) * real, atol=1e-12)
    slope = torch.randn_like(out) * real
    for mine, right in zip(
        torch.autograd.grad(out, given, slope), torch.autograd.grad(plainly(given, found), given, slope), strict=True
    ):
        assert torch.allclose(mine, right, atol=1e-12)


def visited(found: Reach, grad: bool) -> torch.Tensor:
    """What a kernel over the blocks computes, (B, T, P + N): whole blocks without the rule, blocks in part with it."""
    gathered, _, blocks = flex._prepared(found, grad)
    batch, new = found.queries.shape
    width = gathered.total + found.keys.shape[1]
    rule = torch.zeros(batch, new, width, dtype=torch.bool)
    for row in range(batch):
        index = torch.full((new, width), row)
        query, key = torch.meshgrid(torch.arange(new), torch.arange(width), indexing="ij")
        rule[row] = blocks.mask_mod(index, index * 0, query, key)

    def spread(number: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        table = torch.zeros(batch, which.shape[2], -(-width // flex.BLOCK), dtype=torch.bool)
        for row in range(batch):
            for block in range(which.shape[2]):
                table[row, block, which[row, 0, block, : number[row, 0, block]].long()] = True
        return table.repeat_interleave(flex.BLOCK, 1).repeat_interleave(flex.BLOCK, 2)[:, :new, :width]

    part = spread(blocks.kv_num_blocks, blocks.kv_indices)
    return (rule & part) | spread(blocks.full_kv_num_blocks, blocks.full_kv_indices)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize(("window", "every"), [(30, 16), (200, 8), (50, None), (1, 16)])
def test_blocks_with_nodes_in_front_are_the_same_as_a_whole_mask(
    case: str, window: int, every: int | None, grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    positions, mask, batch = CASES[case]
    monkeypatch.setattr(flex, "SEGMENT", 128)
    found = of(positions, mask, (batch, 360), every, window)
    given = query, key, value = parts(found)
    real = (found.queries >= 0)[:, None, :, None]
    rule = (visited(found, grad) | (found.queries < 0)[..., None])[:, None]
    with torch.set_grad_enabled(grad):
        keys, values = flex.in_front(key, found), flex.in_front(value, found)
        out = functional.scaled_dot_product_attention(query, keys, values, attn_mask=rule, scale=0.3, enable_gqa=True)
    right = plainly(given, found)
    assert torch.allclose(out * real, right * real, atol=1e-12)
    assert (keys.shape[2] > 360) == (every is not None and window < 360 - flex.BLOCK)
    if grad:
        slope = torch.randn_like(out) * real
        mine, theirs = (torch.autograd.grad(end, given, slope) for end in (out, right))
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("grad", [True, False])
def test_the_backward_pass_is_told_the_same_blocks(grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "SEGMENT", 128)
    found = of(None, None, (1, 1200), 16, 400)
    blocks = flex._prepared(found, grad)[2]
    for number, which, back, rows in (
        (blocks.kv_num_blocks, blocks.kv_indices, blocks.q_num_blocks, blocks.q_indices),
        (blocks.full_kv_num_blocks, blocks.full_kv_indices, blocks.full_q_num_blocks, blocks.full_q_indices),
    ):
        there = {(q, int(k)) for q in range(which.shape[2]) for k in which[0, 0, q, : number[0, 0, q]]}
        assert there == {(int(q), k) for k in range(rows.shape[2]) for q in rows[0, 0, k, : back[0, 0, k]]}
        assert there


def test_without_anything_hidden_it_is_the_librarys_causal_attention() -> None:
    made, full = model(sliding_window=64), model(sliding_window=None)
    full.load_state_dict(made.state_dict())
    ids = tokens(2, 60)
    assert torch.equal(made(ids).logits, full(ids).logits)


def test_eager_and_fused_attention_agree() -> None:
    made = model()
    ids = tokens(2, 30)
    right = made(ids, attention_mask=torch.tensor([[0] * 5 + [1] * 25, [1] * 30])).logits
    made.set_attn_implementation("eager")
    out = made(ids, attention_mask=torch.tensor([[0] * 5 + [1] * 25, [1] * 30])).logits
    assert torch.allclose(out[0, 5:], right[0, 5:], atol=1e-5)
    assert torch.allclose(out[1], right[1], atol=1e-5)
    assert config().sliding_window == 8


def test_positions_are_turned_alike_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    made, ids = model(), tokens(2, 40)
    with torch.no_grad():
        right = made(ids).logits
        monkeypatch.setattr("r1core.model.r1.rotary.PIECE", 7)
        assert torch.equal(made(ids).logits, right)
    assert torch.allclose(made(ids).logits, right, atol=1e-6)
    made(ids).logits.sum().backward()


def test_dropout_in_a_pass_too_long_for_a_mask_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MASKED", 100)
    made = model(attention_dropout=0.5)
    made(tokens(1, 20))
    with pytest.raises(ValueError, match=r"attention_dropout = 0.5, and a pass of 20 tokens"):
        made.train()(tokens(1, 20))
