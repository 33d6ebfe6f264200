"""The Fisher information against a plain loop over rows, and against its definition by enumeration."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from r1core.data.packing import pack_rows
from r1core.data.tokens import Encoded
from r1core.model.adapted import adapted_of
from r1core.runs.directory import RunDirectory
from r1core.train.continual import trained_weights
from r1core.train.fisher import Measured, fisher, kept_or, sampled
from r1core.train.loop import Trainer


@pytest.fixture
def run(tiny: ModuleType) -> Trainer:
    """A model whose every trained weight has been moved from its start."""
    made: Trainer = tiny.trainer()
    generator = torch.Generator().manual_seed(3)
    for parameter in made.trainable:
        parameter.data += torch.randn(parameter.shape, generator=generator) / 20
    made.model.eval()
    return made


def weights_of(run: Trainer) -> dict[str, torch.nn.Parameter]:
    return trained_weights(adapted_of(run.model), run.layers)


def log_chances(run: Trainer, row: Encoded) -> torch.Tensor:
    """Log-probabilities at the places of the answer, (P, V), from a plain pass."""
    ids = torch.tensor([row.prompt + row.response[:-1]])
    with run.layers.using(pack_rows([row], run.kinds, torch.float32).features):
        logits = run.model(input_ids=ids).logits[0, len(row.prompt) - 1 :]
    return logits.log_softmax(-1)


def test_it_is_that_of_a_plain_loop_over_rows(run: Trainer) -> None:
    weights = weights_of(run)
    expected = {name: torch.zeros_like(p) for name, p in weights.items()}
    for index, row in enumerate(run.rows):
        logs = log_chances(run, row)
        points = np.random.default_rng([9, index]).random(len(logs))
        drawn = [
            int((np.cumsum(c) < u * c.sum()).sum())
            for c, u in zip(logs.exp().detach().double().numpy(), points, strict=True)
        ]
        run.model.zero_grad(set_to_none=True)
        run.layers.zero_grad(set_to_none=True)
        sum(logs[place, token] for place, token in enumerate(drawn)).backward()
        for name, parameter in weights.items():
            expected[name] += 0 if parameter.grad is None else parameter.grad**2
    tokens = sum(len(row.response) for row in run.rows)
    found = fisher(run.model, run.layers, run.rows, run.kinds, weights, seed=9)
    assert found.keys() == weights.keys()
    for name, values in found.items():
        assert torch.allclose(values, expected[name] / tokens, rtol=2e-3, atol=1e-8), name
    assert any(values.max() > 0 for values in found.values())


def test_on_average_it_is_the_definition(run: Trainer) -> None:
    """`E_drawn (d log p)^2`, by enumeration over the whole vocabulary at one place, against the mean of many draws."""
    row = next(row for row in run.rows if len(row.response) == 1 or row.slots)
    row = Encoded(row.id, row.prompt, row.response[:1], row.slots)
    weights = weights_of(run)
    name = next(n for n in weights if "lora_B" in n)
    logs = log_chances(run, row)[0]
    exact = torch.zeros_like(weights[name])
    for chance in logs.topk(len(logs)).indices.tolist():
        [grad] = torch.autograd.grad(logs[chance], [weights[name]], retain_graph=True)
        exact += logs[chance].exp().detach() * grad**2
    one = {name: weights[name]}
    draws = [fisher(run.model, run.layers, [row], run.kinds, one, seed=seed)[name] for seed in range(150)]
    mean = torch.stack(draws).mean(0)
    assert float(mean.sum()) == pytest.approx(float(exact.sum()), rel=0.2)


def test_processes_do_not_change_it(run: Trainer) -> None:
    weights = weights_of(run)
    torch.set_num_threads(1)
    alone, shared = (
        fisher(run.model, run.layers, run.rows, run.kinds, weights, seed=1, processes=number) for number in (1, 2)
    )
    for name, values in alone.items():
        assert torch.equal(values, shared[name])


def test_rows_are_drawn_once_and_for_all(run: Trainer) -> None:
    chosen = sampled(run.rows, 5, seed=4, run=1)
    assert [row.id for row in chosen] == [row.id for row in sampled(run.rows, 5, seed=4, run=1)]
    assert len({row.id for row in chosen}) == 5
    assert sampled(run.rows, 99, seed=4, run=1) == list(run.rows)


def test_what_was_measured_is_kept_for_this_training_and_no_other(tmp_path: Path, run: Trainer) -> None:
    directory, asked = RunDirectory(tmp_path / "run"), []

    def measure() -> dict[str, torch.Tensor]:
        asked.append(1)
        return {"a": torch.tensor([float(len(asked))])}

    measured = [Measured("first", run.rows)]
    assert float(kept_or(directory, "one", measured, measure)["a"]) == 1.0
    assert float(kept_or(directory, "one", measured, measure)["a"]) == 1.0
    assert float(kept_or(directory, "two", measured, measure)["a"]) == 2.0
    told = json.loads((directory.continual / "fisher.json").read_bytes())
    assert told["measured_on"][0]["rows"] == [row.id for row in run.rows]
    tensors = directory.continual / "fisher.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x01")  # damaged: measured again, never read
    assert float(kept_or(directory, "two", measured, measure)["a"]) == 3.0
