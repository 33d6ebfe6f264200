"""The gradient of each row against a naive loop, against Opacus, and under everything that a pass may do."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModule
from torch import nn
from transformers import PreTrainedModel

from r1core.api import UserError
from r1core.data.padding import by_length, side_by_side
from r1core.data.tokens import Encoded
from r1core.model.adapted import Adapted
from r1core.model.adapter import add_adapter
from r1core.model.compiled import checkpoint_blocks
from r1core.model.row_gradients import RowGradients
from r1core.model.scores import Reader
from r1core.recipe.strategy import Role, Strategy
from r1core.recipe.training import Adapter
from r1core.testing.tiny import tiny_model

Named = list[tuple[str, nn.Parameter]]


def rows(lengths: Sequence[int], seed: int = 0) -> list[Encoded]:
    draw = np.random.default_rng(seed)
    made = [draw.integers(10, 399, size=length).tolist() for length in lengths]
    return [Encoded(str(n), tuple(ids[:-2]), (*ids[-2:],), ()) for n, ids in enumerate(made)]


def adapted(
    dtype: torch.dtype = torch.float32, strategy: Strategy | None = None, **adapter: object
) -> tuple[Adapted, Named]:
    base: PreTrainedModel = tiny_model().to(dtype).requires_grad_(False)
    made = add_adapter(base, Adapter(rank=4, **adapter), seed=0, strategy=strategy)  # type: ignore[arg-type]
    named = [(name, p) for name, p in made.model.named_parameters() if p.requires_grad]
    draw = torch.Generator().manual_seed(1)
    for _, parameter in named:  # away from the zero start, so that every parameter has a gradient
        parameter.data += torch.randn(parameter.shape, generator=draw) / 20
    return made, named


def ours(made: Adapted, named: Named, given: Sequence[Encoded]) -> list[torch.Tensor]:
    found = RowGradients(made.model, named)
    batch = side_by_side(given, {})
    with found.of(len(given)):
        each = Reader(made.model, linear=True)(batch).cross_entropy(batch.targets)
        batch.by_row(each).sum().backward()
    assert all(parameter.grad is None for _, parameter in named)
    return found.take()


def naive(made: Adapted, named: Named, given: Sequence[Encoded]) -> list[torch.Tensor]:
    """Each row alone, without a batch, by the model's own logits."""
    found = []
    for row in given:
        ids = torch.tensor([row.prompt + row.response])
        logits = made.model(input_ids=ids).logits[0, len(row.prompt) - 1 : -1].float()
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.response), reduction="sum")
        found.append(torch.autograd.grad(loss, [parameter for _, parameter in named]))
    return [torch.stack(each) for each in zip(*found, strict=True)]


FULL = Strategy(shallow_attention=Role(mode="full", learning_rate=1e-3))


@pytest.mark.parametrize("freeze_a", [False, True], ids=["", "A frozen"])
@pytest.mark.parametrize("strategy", [None, FULL], ids=["lora", "linear layers in full"])
@pytest.mark.parametrize("lengths", [(9,), (5, 17, 3, 11), (6, 6, 6)])
def test_row_gradients_are_those_of_a_naive_loop(
    lengths: Sequence[int], strategy: Strategy | None, freeze_a: bool
) -> None:
    made, named = adapted(strategy=strategy, freeze_a=freeze_a)
    assert any("lora_B" in name for name, _ in named)
    assert any("lora_A" in name for name, _ in named) is not freeze_a
    given = rows(lengths)
    for got, wanted in zip(ours(made, named, given), naive(made, named, given), strict=True):
        assert got.shape == wanted.shape
        assert float((got - wanted).abs().max()) <= 1e-5 * max(1.0, float(wanted.abs().max()))
    if strategy is FULL:
        whole = [name for name, _ in named if "lora" not in name]
        assert whole
        assert all("self_attn" in name for name in whole)


def test_in_bf16_their_norms_are_those_of_the_naive_loop_in_fp32() -> None:
    given = rows((5, 17, 30, 11))
    half, whole = adapted(torch.bfloat16), adapted()
    got, wanted = ours(*half, given), naive(*whole, given)
    for gradients in (got, wanted):
        gradients[:] = [torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)]
    assert torch.allclose(got[0], wanted[0], rtol=1e-2)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # Opacus hooks modules
@pytest.mark.parametrize("freeze_a", [False, True])
def test_opacus_finds_the_same(freeze_a: bool) -> None:
    made, named = adapted(freeze_a=freeze_a)
    given = rows((7, 12, 9))
    got = ours(made, named, given)
    plain = add_adapter(
        tiny_model().requires_grad_(False), Adapter(rank=4, freeze_a=freeze_a), seed=0, fused=False
    ).model
    plain.load_state_dict(made.model.state_dict())
    wrapped = GradSampleModule(plain, loss_reduction="sum")
    ids = torch.zeros(3, 12, dtype=torch.long)
    for at, row in enumerate(given):
        ids[at, : row.length] = torch.tensor(row.prompt + row.response)
    logits = wrapped(input_ids=ids, position_ids=torch.arange(12).repeat(3, 1)).logits
    loss = sum(
        torch.nn.functional.cross_entropy(
            logits[at, len(row.prompt) - 1 : row.length - 1], torch.tensor(row.response), reduction="sum"
        )
        for at, row in enumerate(given)
    )
    loss.backward()  # type: ignore[union-attr]
    theirs = dict(plain.named_parameters())
    for (name, _), each in zip(named, got, strict=True):
        assert torch.allclose(each, theirs[name].grad_sample, atol=1e-5)


def test_checkpointed_blocks_give_the_same_to_the_bit() -> None:
    made, named = adapted()
    given = rows((5, 17, 3))
    plain = ours(made, named, given)
    checkpoint_blocks(made.model)
    made.model.train()
    assert all(map(torch.equal, plain, ours(made, named, given)))


def test_padding_and_the_other_rows_change_nothing_but_rounding() -> None:
    made, named = adapted()
    given = rows((5, 17, 3, 11))
    together = ours(made, named, given)
    for at, row in enumerate(given):
        for all_rows, alone in zip(together, ours(made, named, [row]), strict=True):
            assert float((all_rows[at] - alone[0]).abs().max()) <= 5e-6


def test_the_model_is_as_before_afterwards() -> None:
    made, named = adapted(strategy=FULL)
    ids = torch.arange(10, 20)[None]
    before, keys = made.model(input_ids=ids).logits, set(made.model.state_dict())
    forwards = {name for name, module in made.model.named_modules() if "forward" in vars(module)}
    ours(made, named, rows((4, 8)))
    assert torch.equal(made.model(input_ids=ids).logits, before)
    assert set(made.model.state_dict()) == keys
    assert {name for name, module in made.model.named_modules() if "forward" in vars(module)} == forwards
    assert copy.deepcopy(made.model) is not None


@pytest.mark.parametrize(
    ("adapter", "strategy", "named"),
    [
        ({"dropout": 0.1}, None, "lora_A"),
        ({"kind": "dora"}, None, "lora_"),
        ({}, Strategy(norms=Role(mode="full", learning_rate=1e-3)), "norm"),
        ({}, Strategy(output=Role(mode="full", learning_rate=1e-3), untie=True), "lm_head"),
        ({}, Strategy(embeddings=Role(mode="full", learning_rate=1e-3), untie=True), "embed_tokens"),
    ],
)
def test_a_weight_without_an_exact_rule_is_refused_by_name(
    adapter: dict[str, object], strategy: Strategy | None, named: str
) -> None:
    made, weights = adapted(strategy=strategy, **adapter)
    with pytest.raises(UserError, match=f"{named}.*no exact rule"):
        RowGradients(made.model, weights)


def test_passes_hold_as_many_filled_up_tokens_as_they_may_and_every_group_once() -> None:
    draw = np.random.default_rng(3)
    groups = [draw.integers(2, 40, size=draw.integers(1, 5)).tolist() for _ in range(60)]
    passes = by_length(groups, 200)
    assert sorted(group for one in passes for group in one) == list(range(60))
    for one in passes:
        filled = max(max(groups[g]) for g in one) * sum(len(groups[g]) for g in one)
        assert filled <= 200 or len(one) == 1
    assert by_length(groups, 0) == [list(range(60))]
    assert by_length([], 0) == []


def test_a_model_with_batch_statistics_is_refused_by_the_modules_name() -> None:
    made, named = adapted()
    made.model.add_module("pooled", nn.BatchNorm1d(4))
    with pytest.raises(UserError, match="pooled: a batch norm"):
        RowGradients(made.model, named)
