"""Generation behind a prefill: one token a row a pass, all rows in one packed sequence, under constraints.

The same loop serves evaluation (many short prompts that share a prefix) and `r1core generate` (one prompt). A row whose
constraints leave no token stops there, with the rules named; nothing is ever relaxed.

R = rows, T = packed tokens so far, V = vocabulary. Behind the prompt, extra layers run without spans, as in training,
unless the run has causal kinds: then each row's answer is read as it grows, and what is recognised by a token stands on
that token in the pass that reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from r1core.api import ConstraintState, Reason, SlotFeatures, TokenMask
from r1core.data.packing import additive, slot_features
from r1core.data.routes import routes_of, told
from r1core.decode.constraints import DeadEnd, allowed_bool
from r1core.decode.prefill import Prefilled
from r1core.model.adapted import LanguageModel


@dataclass(frozen=True, slots=True)
class Intervention:
    """A token that the model preferred and a constraint refused: its place, the reasons, what came instead."""

    position: int
    refused: int
    taken: int | None
    reasons: tuple[Reason, ...]


@dataclass(slots=True)
class Completion:
    """One generated answer; `tokens` without the end-of-sequence token."""

    tokens: list[int] = field(default_factory=list)
    finish: Literal["eos", "length", "dead_end", ""] = ""
    interventions: list[Intervention] = field(default_factory=list)
    dead_end: str = ""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How to pick tokens. `temperature = 0` is greedy; sampling draws from `(seed, row, position)`."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@torch.no_grad()
def decode(
    model: LanguageModel,
    start: Prefilled,
    decoding: Decoding,
    eos_ids: Set[int],
    states: Sequence[ConstraintState | None] = (),
) -> list[Completion]:
    """Continue every prefilled row until its end-of-sequence, a dead end or the length limit."""
    rows = len(start.lengths)
    completions = [Completion() for _ in range(rows)]
    current: list[ConstraintState | None] = list(states) or [None] * rows
    active, logits, visible = list(range(rows)), start.logits, start.visible
    for position in range(decoding.max_new_tokens):
        taken: list[tuple[int, int]] = []
        for line, row in enumerate(active):
            token = _pick(logits[line], current[row], completions[row], position, decoding, row)
            if token is None:
                continue
            if token in eos_ids:
                completions[row].finish = "eos"
                continue
            completions[row].tokens.append(token)
            state = current[row]
            current[row] = state.advance(token) if state is not None else None
            taken.append((row, token))
        last = position + 1 == decoding.max_new_tokens
        if last or not taken:
            break
        logits, visible = _advance(model, start, taken, active, visible, position)
        active = [row for row, _ in taken]
    for completion in completions:
        completion.finish = completion.finish or "length"
    return completions


def _advance(
    model: LanguageModel,
    start: Prefilled,
    taken: Sequence[tuple[int, int]],
    active: Sequence[int],
    visible: np.ndarray,
    position: int,
) -> tuple[torch.Tensor, np.ndarray]:
    """One pass over the newest token of each row that goes on; returns its logits `(R', V)` and what it may see."""
    lines = [active.index(row) for row, _ in taken]
    visible = np.concatenate([visible[lines], np.eye(len(taken), dtype=bool)], axis=1)
    device = model.device
    with start.layers.using(_new_features(start, taken, device)):
        output = model(
            input_ids=torch.tensor([[token for _, token in taken]], device=device),
            position_ids=torch.tensor([[start.lengths[row] + position for row, _ in taken]], device=device),
            attention_mask=additive(visible, model.dtype).to(device) if not visible.all() else None,
            past_key_values=start.cache,
            use_cache=True,
            **told(routes_of([start.tasks[row] for row, _ in taken] if start.tasks else [], [1] * len(taken))),
        )
    return output.logits[0].float(), visible


def _new_features(
    start: Prefilled, taken: Sequence[tuple[int, int]], device: torch.device
) -> Mapping[str, SlotFeatures]:
    """The slots on the newest tokens, one a row; a layer may add something where no span is, as it did in training."""
    slots = [start.answers[row].take([token], line) for line, (row, token) in enumerate(taken) if start.answers]
    if not any(slots):
        return start.no_spans
    features = slot_features(slots, [0] * len(slots), start.kinds)
    return {kind: found.to(device) for kind, found in features.items()}


def _pick(
    logits: torch.Tensor,
    state: ConstraintState | None,
    completion: Completion,
    position: int,
    decoding: Decoding,
    row: int,
) -> int | None:
    """The next token of one row, or None when its constraints leave none."""
    preferred = int(logits.argmax())
    if state is None:
        return _sample(logits, decoding, row, position)
    try:
        allowed = allow(logits, state.mask())
        if not bool(torch.isfinite(allowed).any()):
            raise DeadEnd(["the constraint"], state.explain(preferred))
    except DeadEnd as dead:
        completion.finish, completion.dead_end = "dead_end", str(dead)
        completion.interventions.append(Intervention(position, preferred, None, state.explain(preferred)))
        return None
    token = _sample(allowed, decoding, row, position)
    if not bool(torch.isfinite(allowed[preferred])):
        completion.interventions.append(Intervention(position, preferred, token, state.explain(preferred)))
    return token


def allow(logits: torch.Tensor, mask: TokenMask) -> torch.Tensor:
    """Logits `(V,)` with every refused token at minus infinity."""
    if mask.banned is not None:
        out = logits.clone()
        out[torch.from_numpy(mask.banned.astype(np.int64)).to(out.device)] = -torch.inf
        return out
    keep = torch.from_numpy(allowed_bool(mask, logits.shape[-1])).to(logits.device)
    return logits.masked_fill(~keep, -torch.inf)


def _sample(logits: torch.Tensor, decoding: Decoding, row: int, position: int) -> int:
    if decoding.temperature == 0.0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / decoding.temperature, -1).cpu().numpy().astype(np.float64)
    order = np.argsort(-probabilities)
    kept = order[: int(np.searchsorted(np.cumsum(probabilities[order]), decoding.top_p)) + 1]
    rng = np.random.default_rng([decoding.seed, row, position])
    return int(rng.choice(kept, p=probabilities[kept] / probabilities[kept].sum()))


class LabelTree:
    """The label set as token paths, for scoring every label in one pass.

    A label's score is the log-probability of its path when, at each point where labels part, only tokens that lead to a
    label may be taken. Where only one token can follow, it costs nothing. `labels` keep their order.
    """

    def __init__(self, labels: Sequence[str], paths: Sequence[tuple[int, ...]]) -> None:
        self.labels, self.paths = tuple(labels), tuple(paths)
        children: dict[tuple[int, ...], set[int]] = {}
        for path in paths:
            for depth, token in enumerate(path):
                children.setdefault(path[:depth], set()).add(token)
        self._children = {node: sorted(tokens) for node, tokens in children.items() if len(tokens) > 1}
        self.branches = tuple(sorted(node for node in self._children if node))

    def scores(self, root: torch.Tensor, branches: torch.Tensor) -> np.ndarray:
        """Log-probabilities `(R, C)`.

        `root` : logits `(R, V)` behind the prompts; `branches` : `(R * len(self.branches), V)` behind the branches.
        """
        rows = root.shape[0]
        at: dict[tuple[int, ...], Any] = {(): root}
        for index, node in enumerate(self.branches):
            at[node] = branches.reshape(rows, len(self.branches), -1)[:, index]
        parts = {n: torch.log_softmax(at[n][:, tokens], -1) for n, tokens in self._children.items()}
        out = torch.zeros(rows, len(self.paths), dtype=torch.float64)
        for column, path in enumerate(self.paths):
            for depth, token in enumerate(path):
                node = path[:depth]
                if node in parts:
                    out[:, column] += parts[node][:, self._children[node].index(token)].double().cpu()
        return out.numpy()
