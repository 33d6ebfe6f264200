"""The diagonal Fisher information of the trained weights on earlier rows: measured once, kept, read by a resumed run.

The answers are drawn from the model, token by token behind the row's own answer so far, and each row's gradient is
squared by itself: `F_i = sum_rows (d/d theta_i log p(drawn answer))^2 / sum_rows tokens`. Drawn tokens make this the
Fisher information; with the gold answers (the "empirical" one) it would vanish wherever the model has learnt its rows
by heart, which is when it is needed: F. Kunstner et al., arXiv:1905.12558. Per token, as the training loss
is a mean over tokens: lambda = 1 then is the second-order expansion of the earlier tasks' mean loss. Of several earlier
runs the sum is taken, all of them measured anew at the weights that training starts from.

P = supervised positions, V = vocabulary. Not covered: dropout (it is off), block-diagonal or full matrices.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch.nn import functional

from r1core.api import JSON, R1Error, SpanKind
from r1core.data.packing import pack_rows
from r1core.data.tokens import Encoded
from r1core.model.adapted import LanguageModel
from r1core.model.layers import ExtraLayers
from r1core.model.processes import spread
from r1core.model.scores import logits_at
from r1core.runs.directory import RunDirectory
from r1core.runs.files import sha256_file, write_atomic, write_json

TOGETHER = 8
"""Rows whose squared gradients one process sums before they are added up, in one order whatever shares the work."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of one earlier run that the Fisher information is measured on."""

    run: str
    rows: Sequence[Encoded]


def sampled(rows: Sequence[Encoded], most: int, seed: int, run: int) -> list[Encoded]:
    """At most `most` rows of an earlier run (its number in the chain), drawn from (seed, run), in their own order."""
    chosen = np.random.default_rng([seed, run]).permutation(len(rows))[:most]
    return [rows[index] for index in sorted(chosen.tolist())]


def fisher(
    model: LanguageModel,
    layers: ExtraLayers,
    rows: Sequence[Encoded],
    kinds: Mapping[str, SpanKind],
    weights: Mapping[str, torch.nn.Parameter],
    *,
    seed: int,
    processes: int = 1,
) -> dict[str, torch.Tensor]:
    """The diagonal of the Fisher information on these rows, a token, by the names of `weights`; fp32, on the CPU.

    Parameters
    ----------
    seed : answers are drawn from (seed, index of the row).
    processes : that share the rows; how many does not change what is drawn.

    Raises
    ------
    R1Error : when it is not finite.
    """
    model.eval()

    def work(indices: Sequence[int]) -> list[np.ndarray]:
        sums = [torch.zeros_like(weight) for weight in weights.values()]
        for index in indices:
            grads = _drawn_gradient(model, layers, rows[index], kinds, list(weights.values()), [seed, index])
            for total, grad in zip(sums, grads, strict=True):
                if grad is not None:
                    total.addcmul_(grad, grad)
        return [total.cpu().numpy() for total in sums]

    parts = [range(start, min(start + TOGETHER, len(rows))) for start in range(0, len(rows), TOGETHER)]
    done = spread(processes, work, parts, lambda number: None)
    tokens = sum(len(row.response) for row in rows)
    columns = zip(*done, strict=True)
    found = {name: torch.from_numpy(sum(column) / tokens) for name, column in zip(weights, columns, strict=True)}
    for name, values in found.items():
        if not bool(values.isfinite().all()):
            raise R1Error(f"the Fisher information of {name} is not finite: the earlier run's weights are not sound")
    return found


def _drawn_gradient(
    model: LanguageModel,
    layers: ExtraLayers,
    row: Encoded,
    kinds: Mapping[str, SpanKind],
    weights: Sequence[torch.nn.Parameter],
    seed: Sequence[int],
) -> Sequence[torch.Tensor | None]:
    """Gradient of the log-probability of an answer that is drawn from the model."""
    batch = pack_rows([row], kinds, model.dtype).to(model.device)
    with layers.using(batch.features):
        logits = logits_at(model, batch).float()
        chances = logits.detach().softmax(-1).double().cpu()
        points = torch.from_numpy(np.random.default_rng(seed).random(len(chances)))[:, None]
        drawn = torch.searchsorted(chances.cumsum(-1), points * chances.sum(-1, keepdim=True))[:, 0]
        loss = functional.cross_entropy(
            logits, drawn.clamp(max=logits.shape[-1] - 1).to(logits.device), reduction="sum"
        )
        return torch.autograd.grad(loss, weights, allow_unused=True)


def kept_or(
    run: RunDirectory, digest: str, measured: Sequence[Measured], measure: Callable[[], dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    """What this very training (`digest`) measured and wrote down, its hash checked; else what `measure` gives, kept."""
    tensors, told = run.continual / "fisher.safetensors", run.continual / "fisher.json"
    if told.exists() and tensors.exists():
        record = json.loads(told.read_bytes())
        if record["training"] == digest and record["sha256"] == sha256_file(tensors):
            return load_file(tensors)
    found = measure()
    write_atomic(tensors, save(found))
    runs: list[JSON] = [
        {"run": one.run, "tokens": sum(len(row.response) for row in one.rows), "rows": [row.id for row in one.rows]}
        for one in measured
    ]
    content: dict[str, JSON] = {"training": digest, "sha256": sha256_file(tensors), "measured_on": runs}
    write_json(told, content)
    return found
