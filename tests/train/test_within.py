"""Cross-entropy within a label set, against label by label sums over the model's own logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from r1core.api import UserError
from r1core.data.packing import Batch, Layout, pack_rows
from r1core.data.padding import side_by_side
from r1core.data.tokens import Encoded
from r1core.model.scores import Reader
from r1core.testing.tiny import tiny_model
from r1core.train.within import WithinLabels

END = 2
LABELS = [(20, END), (30, 31, END), (30, 32, 33, END), (40, 41, END)]


def rows(answers: list[int]) -> list[Encoded]:
    draw = np.random.default_rng(0)
    prompts = [tuple(draw.integers(10, 399, size=3 + n % 4).tolist()) for n in range(len(answers))]
    return [
        Encoded(str(n), prompt, LABELS[answer], ())
        for n, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]


@torch.no_grad()
def losses(objective: WithinLabels, model: PreTrainedModel, batch: Batch, linear: bool = True) -> torch.Tensor:
    return objective.loss(Reader(model, linear=linear)(batch), batch)


@torch.no_grad()
def by_hand(model: PreTrainedModel, row: Encoded) -> float:
    """Minus the log-probability of the row's label, renormalised token by token over what leads to some label."""
    ids = torch.tensor([row.prompt + row.response])
    logits = model(input_ids=ids).logits[0].double()
    total = 0.0
    for length, token in enumerate(row.response):
        allowed = sorted({one[length] for one in LABELS if one[:length] == row.response[:length] and length < len(one)})
        here = logits[len(row.prompt) + length - 1]
        total -= float(here[token] - torch.logsumexp(here[allowed], 0))
    return total


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("layout", ["padded", "best_fit", "shared_prefix"])
def test_a_rows_loss_is_that_of_its_label_among_all(layout: str, linear: bool) -> None:
    model, given, objective = tiny_model(), rows([0, 1, 2, 3, 2, 0]), WithinLabels(LABELS)
    if layout == "padded":
        batch = side_by_side(given, {})
    else:
        batch = pack_rows(given, {}, torch.float32, Layout(share=layout == "shared_prefix"))
    found = losses(objective, model, batch, linear)
    expected = [by_hand(model, row) for row in given]
    assert np.allclose(found.numpy(), expected, atol=1e-5)


def test_probabilities_of_all_labels_sum_to_one() -> None:
    model, objective = tiny_model(), WithinLabels(LABELS)
    prompt = rows([0])[0].prompt
    batch = side_by_side([Encoded(str(n), prompt, label, ()) for n, label in enumerate(LABELS)], {})
    loss = losses(objective, model, batch)
    assert float((-loss).exp().sum()) == pytest.approx(1.0, abs=1e-6)


def test_smoothing_is_spread_over_what_the_set_allows() -> None:
    model, given = tiny_model(), rows([0, 1])
    batch = side_by_side(given, {})
    hard, soft = (losses(WithinLabels(LABELS, s), model, batch) for s in (0.0, 0.3))
    ids = torch.tensor([given[0].prompt])
    with torch.no_grad():
        at = model(input_ids=ids).logits[0, -1].double()[[20, 30, 40]].log_softmax(0)
    assert float(soft[0]) == pytest.approx(0.7 * float(hard[0]) - 0.3 * float(at.mean()), abs=1e-5)


def test_gradients_are_finite_where_the_packing_pads() -> None:
    model, given, objective = tiny_model(), rows([3, 0, 1]), WithinLabels(LABELS, 0.1)
    batch = side_by_side(given, {})
    objective.loss(Reader(model, linear=True)(batch), batch).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_a_row_counts_once_and_an_answer_without_the_set_is_refused() -> None:
    objective = WithinLabels(LABELS)
    assert [objective.weight(row) for row in rows([0, 2])] == [1.0, 1.0]
    with pytest.raises(UserError, match="not in the label set"):
        objective.weight(Encoded("r7", (5, 6), (20, 21, END), ()))
