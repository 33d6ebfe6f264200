"""Generation: one prefill, then one token a row a pass, all rows in one packed sequence, under constraints.

The same loop serves evaluation (many short prompts that share a prefix) and `r1core generate` (one prompt). A row whose
constraints leave no token stops there, with the rules named; nothing is ever relaxed.

R = rows, T = packed tokens so far, V = vocabulary. Extra layers read the prompt's spans at prefill; behind the prompt
they run without spans, as in training (kinds that declare themselves causal are not recomputed while decoding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from peft import PeftModel
from transformers import DynamicCache, PreTrainedModel

from r1core.api import ConstraintState, Reason, SlotFeatures, SpanKind, TokenMask
from r1core.data.packing import Segment, additive, pack, shared_prefix, slot_features
from r1core.data.tokens import Slot
from r1core.decode.constraints import DeadEnd, allowed_bool
from r1core.model.layers import ExtraLayers

Prompt = tuple[tuple[int, ...], tuple[Slot, ...]]


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


@dataclass(slots=True)
class Prefilled:
    """Prompts that the model has read.

    `logits` (R, V) behind each prompt; `visible` (R, T): what a row may look back at.

    `extra` (E, V): logits behind the last token of each further segment that was asked for, in order.
    `no_spans` : what the layers are given for tokens behind the prompt.
    """

    logits: torch.Tensor
    extra: torch.Tensor
    visible: np.ndarray
    lengths: list[int]
    cache: DynamicCache
    layers: ExtraLayers
    no_spans: Mapping[str, SlotFeatures]


@torch.no_grad()
def prefill(
    model: PreTrainedModel | PeftModel,
    layers: ExtraLayers,
    kinds: Mapping[str, SpanKind],
    prompts: Sequence[Prompt],
    paths: Sequence[tuple[int, ...]] = (),
) -> Prefilled:
    """Read all prompts in one pass, and behind each of them every one of `paths` (token runs that start there)."""
    rows, slots = [p[0] for p in prompts], [p[1] for p in prompts]
    shared = shared_prefix(rows, slots) if len(rows) > 1 else 0
    segments = [Segment(-1, rows[0][:shared])] if shared else []
    first = len(segments)
    segments += [Segment(0 if shared else -1, ids[shared:]) for ids in rows]
    segments += [Segment(first + r, path) for r in range(len(rows)) for path in paths]
    packed = pack(segments)
    ends = [s + len(g.tokens) - 1 for s, g in zip(packed.starts, segments, strict=True)][first:]
    shifts = [start - shared for start in packed.starts[first : first + len(rows)]]
    cache = DynamicCache()
    features = slot_features(slots, shifts, kinds)
    device = model.device
    plain = len(segments) == 1
    with layers.using({k: f.to(device) for k, f in features.items()}):
        output = model(
            input_ids=torch.from_numpy(packed.ids)[None].to(device),
            position_ids=torch.from_numpy(packed.positions)[None].to(device),
            attention_mask=None if plain else additive(packed.allowed, model.dtype).to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.tensor(ends, device=device),
        )
    logits = output.logits[0].float()
    return Prefilled(
        logits=logits[: len(rows)],
        extra=logits[len(rows) :],
        visible=packed.allowed[ends[: len(rows)]],
        lengths=[len(ids) for ids in rows],
        cache=cache,
        layers=layers,
        no_spans={k: f.to(device) for k, f in slot_features([], [], kinds).items()},
    )


@torch.no_grad()
def decode(
    model: PreTrainedModel | PeftModel,
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
    model: PreTrainedModel | PeftModel,
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
    with start.layers.using(start.no_spans):  # a layer may add something where no span is, as it did in training
        output = model(
            input_ids=torch.tensor([[token for _, token in taken]], device=device),
            position_ids=torch.tensor([[start.lengths[row] + position for row, _ in taken]], device=device),
            attention_mask=additive(visible, model.dtype).to(device) if not visible.all() else None,
            past_key_values=start.cache,
            use_cache=True,
        )
    return output.logits[0].float(), visible


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
