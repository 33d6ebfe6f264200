"""Packed rows against each row alone through the plain model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.api import SpanKind
from r1core.data.packing import Batch, Layout, Segment, additive, pack, pack_rows, shared_prefix
from r1core.data.tokens import Encoded, Slot
from r1core.model.load import check_packing
from r1core.model.scores import logits_at
from r1core.testing.tiny import VOCABULARY, tiny_model

KIND = SpanKind("t/k", encode=float, decode=float, width=2, feature=lambda v: (v, -v))
KINDS = {KIND.name: KIND}
TOKENS = st.integers(3, VOCABULARY - 1)


def rows_of(*pairs: tuple[list[int], list[int]]) -> list[Encoded]:
    return [Encoded(str(i), tuple(p), tuple(r), ()) for i, (p, r) in enumerate(pairs)]


def model_with(attention: str) -> torch.nn.Module:
    model = tiny_model()
    model.set_attn_implementation(attention)
    return model.requires_grad_(False)


@torch.no_grad()
def alone(model: torch.nn.Module, row: Encoded) -> torch.Tensor:
    """Logits that predict each response token, from the plain model without any mask or position of ours."""
    whole = torch.tensor([row.prompt + row.response[:-1]])
    return model(input_ids=whole).logits[0, len(row.prompt) - 1 :]


ROWS = rows_of(
    ([5, 6, 7, 8, 20, 21], [30, 31, 2]),
    ([5, 6, 7, 8, 22], [33, 2]),
    ([5, 6, 7, 8, 22, 23, 24, 25], [2]),
)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logits_are_each_rows_own(attention: str) -> None:
    model = model_with(attention)
    batch = pack_rows(ROWS, KINDS, torch.float32)
    with torch.no_grad():
        packed = logits_at(model, batch)
    expected = torch.cat([alone(model, row) for row in ROWS])
    assert torch.allclose(packed, expected, atol=1e-4)
    assert batch.targets.tolist() == [30, 31, 2, 33, 2, 2]
    assert batch.row.tolist() == [0, 0, 0, 1, 1, 2]
    assert batch.input_ids.shape[1] == 4 + (2 + 2) + (1 + 1) + 4  # the shared tokens stand once


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_packing_agrees_for_any_rows(data: st.DataObject) -> None:
    model = tiny_model().requires_grad_(False)
    prefix = data.draw(st.lists(TOKENS, max_size=5))
    one = st.tuples(st.lists(TOKENS, min_size=1, max_size=5), st.lists(TOKENS, min_size=1, max_size=3))
    rows = rows_of(*[(prefix + p, r) for p, r in data.draw(st.lists(one, min_size=1, max_size=4))])
    with torch.no_grad():
        packed = logits_at(model, pack_rows(rows, KINDS, torch.float32))
    assert torch.allclose(packed, torch.cat([alone(model, row) for row in rows]), atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_no_row_leaks_into_another(attention: str) -> None:
    model = model_with(attention)

    def logits(rows: list[Encoded]) -> tuple[Batch, torch.Tensor]:
        batch = pack_rows(rows, KINDS, torch.float32)
        with torch.no_grad():
            return batch, logits_at(model, batch)

    batch, before = logits(ROWS)
    for changed in range(len(ROWS)):
        rows = list(ROWS)
        row = rows[changed]
        rows[changed] = Encoded(
            row.id, (*row.prompt[:4], *[99] * len(row.prompt[4:])), tuple(77 for _ in row.response), ()
        )
        _, after = logits(rows)
        others = batch.row != changed
        assert torch.equal(before[others], after[others])
        assert not torch.equal(before[~others], after[~others])


def test_a_deeper_tree_reads_only_its_ancestors() -> None:
    model = tiny_model().requires_grad_(False)
    tree = [(-1, [5, 6, 7]), (0, [8, 9]), (0, [10]), (1, [11, 12]), (1, [13]), (3, [14]), (-1, [15, 16])]
    packed = pack([Segment(parent, tuple(tokens)) for parent, tokens in tree])
    with torch.no_grad():
        logits = model(
            input_ids=torch.from_numpy(packed.ids)[None],
            position_ids=torch.from_numpy(packed.positions)[None],
            attention_mask=additive(packed.allowed, torch.float32),
        ).logits[0]
    for index, (parent, tokens) in enumerate(tree):
        path = list(tokens)
        while parent >= 0:
            path = tree[parent][1] + path
            parent = tree[parent][0]
        start = packed.starts[index]
        assert packed.positions[start : start + len(tokens)].tolist() == list(range(len(path) - len(tokens), len(path)))
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([path])).logits[0, -len(tokens) :]
        assert torch.allclose(logits[start : start + len(tokens)], expected, atol=1e-4)


def test_a_parent_behind_its_child_is_refused() -> None:
    with pytest.raises(ValueError, match="segment 0 stands before its parent 1"):
        pack([Segment(1, (3,)), Segment(-1, (4,))])


def test_a_lone_row_needs_no_mask() -> None:
    batch = pack_rows(ROWS[:1], KINDS, torch.float32)
    assert batch.mask is None
    assert batch.position_ids.tolist() == [list(range(8))]


def test_slots_stand_on_their_own_rows_tokens() -> None:
    rows = [
        Encoded("a", (5, 6, 7, 40, 41), (2,), (Slot("t/k", 3, 5, (1.0, -1.0)),)),
        Encoded("b", (5, 6, 7, 50, 51, 52), (60, 2), (Slot("t/k", 4, 6, (2.0, -2.0)), Slot("t/k", 3, 4, (3.0, -3.0)))),
        Encoded("c", (5, 6, 7, 70), (2,), ()),
    ]
    batch = pack_rows(rows, KINDS, torch.float32)
    features = batch.features["t/k"]
    ids = batch.input_ids[0].tolist()
    covered = [ids[a:b] for a, b in zip(features.start[0].tolist(), features.end[0].tolist(), strict=True)]
    assert covered == [[40, 41], [51, 52], [50]]
    assert features.values[0].tolist() == [[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]]
    assert bool(features.mask.all())


def test_no_spans_give_empty_slots() -> None:
    features = pack_rows(ROWS, KINDS, torch.float32).features["t/k"]
    assert (features.start.shape, features.values.shape) == ((1, 0), (1, 0, 2))


def test_a_span_inside_the_common_prefix_ends_the_sharing() -> None:
    prompts = [(5, 6, 7, 8, 20), (5, 6, 7, 8, 21)]
    assert shared_prefix(prompts, [(), ()]) == 4
    assert shared_prefix(prompts, [(Slot("t/k", 2, 4, (0.0, 0.0)),), ()]) == 2
    assert shared_prefix(prompts, [(), (Slot("t/k", 0, 1, (0.0, 0.0)),)]) == 0
    assert (
        shared_prefix([prompts[0], prompts[0]], [(), ()]) == 4
    )  # the last prompt token predicts: each row has its own


def test_a_model_on_which_rows_see_one_another_is_refused() -> None:
    from r1core.api import UserError

    class Leaky(torch.nn.Module):
        """Mixes neighbouring tokens, as a convolution does, whatever the mask says."""

        def __init__(self, times: float = 1.0) -> None:
            super().__init__()
            self.inner, self.dtype, self.times = tiny_model().requires_grad_(False), torch.float32, times

        def forward(self, logits_to_keep: torch.Tensor, **inputs: object) -> object:
            output = self.inner(**inputs)
            mixed = output.logits + output.logits.cumsum(1)
            output.logits = mixed[:, logits_to_keep] * self.times
            return output

    check_packing(tiny_model(), ROWS[:2], KINDS, precision="fp32")
    for times in (1.0, 1e6):
        with pytest.raises(UserError, match="see one another") as refused:
            check_packing(Leaky(times), ROWS[:2], KINDS, precision="fp32")  # type: ignore[arg-type]
        assert "packing" in refused.value.fix


def test_rows_that_round_differently_in_other_shapes_are_packed_where_none_sees_another() -> None:
    from r1core.api import UserError

    class Coarse(torch.nn.Module):
        """Rounds otherwise for every number of tokens; with `leak`, lets a row see the one before it besides."""

        def __init__(self, off: float, leak: float = 0.0) -> None:
            super().__init__()
            self.inner, self.dtype, self.off, self.leak = tiny_model().requires_grad_(False), torch.float32, off, leak

        def forward(self, logits_to_keep: torch.Tensor, **inputs: object) -> object:
            output = self.inner(**inputs)
            mixed = output.logits + self.off * output.logits.shape[1] + self.leak * output.logits.cumsum(1)
            output.logits = mixed[:, logits_to_keep]
            return output

    check_packing(Coarse(6e-4), ROWS[:2], KINDS, precision="fp32")  # type: ignore[arg-type]
    for model in (Coarse(1e-2), Coarse(6e-4, leak=1e-2)):
        with pytest.raises(UserError, match="see one another"):
            check_packing(model, ROWS[:2], KINDS, precision="fp32")  # type: ignore[arg-type]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_large_logits_round_more_and_are_no_sign_of_it(precision: str, dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype).requires_grad_(False)
    model.get_output_embeddings().weight.data *= (
        3e4  # about as far as a loss over a few labels lets them grow, and more
    )
    check_packing(model, ROWS[:2], KINDS, precision=precision)


def test_the_additive_mask_opens_exactly_what_is_allowed() -> None:
    allowed = np.tri(3, dtype=bool)
    mask = additive(allowed, torch.bfloat16)
    assert mask.shape == (1, 1, 3, 3)
    assert torch.equal(mask[0, 0] == 0, torch.from_numpy(allowed))
    assert bool(torch.isfinite(mask).all())


def test_rows_of_a_task_stand_together_behind_their_own_start() -> None:
    prompts = ([-1, 5, 6, 7], [-1, 9, 8, 7], [-1, 5, 6, 8], [-1, 9, 8, 6])
    rows = [Encoded(str(i), tuple(p), (30 + i, 2), (), "ab"[i % 2]) for i, p in enumerate(prompts)]
    batch = pack_rows(rows, KINDS, torch.float32)
    assert batch.routes is not None
    assert [(run.task, run.start, run.end) for run in batch.routes.runs] == [("a", 0, 7), ("b", 7, 14)]
    assert batch.routes.tokens == (0, 7)
    assert batch.input_ids[0].tolist() == [0, 5, 6, 7, 30, 8, 32, 0, 9, 8, 7, 31, 6, 33]
    assert batch.position_ids[0].tolist() == [0, 1, 2, 3, 4, 3, 4] * 2
    assert batch.targets.tolist() == [30, 2, 31, 2, 32, 2, 33, 2]
    assert batch.row.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert batch.where.tolist() == [3, 4, 10, 11, 5, 6, 12, 13]
    assert batch.mask is not None
    seen = (batch.mask[0, 0] == 0).int()
    assert not seen[7:, :7].any()
    assert seen[6].tolist() == [1, 1, 1, 0, 0, 1, 1] + [0] * 7


def test_padding_of_a_flash_batch_belongs_to_some_task() -> None:
    rows = [Encoded(str(i), (-1, 5, 6), (30, 2), (), "ab"[i % 2]) for i in range(3)]
    batch = pack_rows(rows, KINDS, torch.float32, Layout(share=False, flash=True, longest=8, multiple=16))
    assert batch.routes is not None
    assert [(run.task, run.start, run.end) for run in batch.routes.runs] == [("a", 0, 8), ("b", 8, 16)]
    assert batch.boundaries is not None
    assert batch.boundaries.tolist() == [0, 4, 8, 12, 16]
    assert batch.row.tolist()[:6] == [0, 0, 1, 1, 2, 2]
