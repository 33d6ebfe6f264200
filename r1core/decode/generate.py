"""Generation behind a prefill: one token a line a pass, all lines in one packed sequence, under constraints.

The same loop serves evaluation (many short prompts that share a prefix) and `r1core generate` (one prompt); a row has
one line, or as many as there are beams. A row whose constraints leave no token stops there, with the rules named;
nothing is ever relaxed.

L = lines, R = rows, T = packed tokens so far, V = vocabulary. Behind the prompt, extra layers run without spans, as in
training, unless the run has causal kinds: then each row's answer is read as it grows, and what is recognised by a token
stands on that token in the pass that reads it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import torch

from r1core.api import ConstraintState, SlotFeatures
from r1core.data.packing import additive, slot_features
from r1core.data.routes import routes_of, told
from r1core.decode.beams import Beams
from r1core.decode.ending import Ending, Stops
from r1core.decode.prefill import Prefilled
from r1core.decode.search import Draw, Search
from r1core.decode.values import Completion, Decoding, Line
from r1core.model.adapted import LanguageModel
from r1core.model.recording import recording


@torch.no_grad()
def decode(
    model: LanguageModel,
    start: Prefilled,
    decoding: Decoding,
    eos_ids: Set[int],
    states: Sequence[ConstraintState | None] = (),
    stops: Stops | None = None,
) -> list[Completion]:
    """Continue every prefilled row until its end-of-sequence, a stop string, a dead end or the length limit."""
    rows = len(start.lengths)
    of_row = list(states) or [None] * rows
    ending = Ending(eos_ids, stops)
    search: Search = (Beams if decoding.beams > 1 else Draw)(rows, decoding, ending)
    lines = [Line(row, of_row[row], place=row) for row in range(rows)]
    for line, answer in zip(lines, start.answers, strict=False):
        line.answer = answer
    logits, visible = start.logits, start.visible
    with recording(model, start.cache, tokens=decoding.max_new_tokens + decoding.reasoning):
        for position in itertools.count():  # every line comes to its limit
            lines = search.grow(lines, logits, position)
            if not lines:
                break
            logits, visible = _read(model, start, lines, visible, position, fork=decoding.beams > 1)
    return search.completions()


def _read(
    model: LanguageModel,
    start: Prefilled,
    lines: Sequence[Line],
    visible: np.ndarray,
    position: int,
    *,
    fork: bool,
) -> tuple[torch.Tensor, np.ndarray]:
    """One pass over the newest token of each line; returns its logits `(L, V)` and what it may see `(L, T)`.

    The cache only grows: a line that forks or is dropped is no more than rows of `visible`.
    """
    came_from = [line.before.place for line in lines if line.before is not None]
    visible = np.concatenate([visible[came_from], np.eye(len(lines), dtype=bool)], axis=1)
    device = model.device
    tasks = [start.tasks[line.row] for line in lines] if start.tasks else []
    with start.layers.using(_new_features(start, lines, device, fork)):
        output = model(
            input_ids=torch.tensor([[line.token for line in lines]], device=device),
            position_ids=torch.tensor([[start.lengths[line.row] + position for line in lines]], device=device),
            attention_mask=additive(visible, model.dtype).to(device) if not visible.all() else None,
            past_key_values=start.cache,
            use_cache=True,
            **told(routes_of(tasks, [1] * len(lines))),
        )
    for place, line in enumerate(lines):
        line.place = place
    return output.logits[0].float(), visible


def _new_features(
    start: Prefilled, lines: Sequence[Line], device: torch.device, fork: bool
) -> Mapping[str, SlotFeatures]:
    """The slots on the newest tokens, one a line; a layer may add something where no span is, as it did in training."""
    slots = []
    for at, line in enumerate(lines):
        if line.answer is not None:
            line.answer = line.answer.fork() if fork else line.answer
            slots.append(line.answer.take([line.token], at))
    if not any(slots):
        return start.no_spans
    features = slot_features(slots, [0] * len(slots), start.kinds)
    return {kind: found.to(device) for kind, found in features.items()}


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
        nodes = [torch.log_softmax(at[n][:, tokens], -1) for n, tokens in self._children.items()]
        told = torch.cat([root[:, :0], *nodes], 1).double().cpu()  # at once: a device is waited for at every transfer
        parts = dict(zip(self._children, told.split([part.shape[1] for part in nodes], 1), strict=True))
        out = torch.zeros(rows, len(self.paths), dtype=torch.float64)
        for column, path in enumerate(self.paths):
            for depth, token in enumerate(path):
                node = path[:depth]
                if node in parts:
                    out[:, column] += parts[node][:, self._children[node].index(token)]
        return out.numpy()
