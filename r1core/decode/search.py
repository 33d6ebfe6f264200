"""Which tokens come next: greedy or drawn, one line a row. `beams.py` keeps several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from r1core.api import ConstraintState, TokenMask
from r1core.decode.constraints import DeadEnd, allowed_bool, allows
from r1core.decode.ending import Ending
from r1core.decode.values import Completion, Decoding, Intervention, Line


class Search(Protocol):
    """Grows lines by one token each time and keeps what has ended."""

    def grow(self, lines: Sequence[Line], logits: torch.Tensor, position: int) -> list[Line]:
        """The lines that go on, from those that were read last and the logits `(len(lines), V)` behind them."""
        ...

    def completions(self) -> list[Completion]:
        """One answer a row, once all have ended."""
        ...


class Draw:
    """The most probable token, or one drawn from the model's distribution."""

    def __init__(self, rows: int, decoding: Decoding, ending: Ending) -> None:
        self._decoding, self._ending = decoding, ending
        self._done = [Completion() for _ in range(rows)]

    def grow(self, lines: Sequence[Line], logits: torch.Tensor, position: int) -> list[Line]:
        """One token for each line; those that end leave."""
        grown: list[Line] = []
        for line, scores, preferred in zip(lines, logits, logits.argmax(-1).tolist(), strict=True):
            picked = self._pick(line, scores, preferred, position)
            if picked is not None:
                self._after(picked, position, grown)
        return grown

    def completions(self) -> list[Completion]:
        """The answers."""
        return self._done

    def _after(self, line: Line, position: int, grown: list[Line]) -> None:
        ending, row = self._ending, line.row
        if line.token in ending.eos_ids and line.before is not None:
            self._done[row] = ending.close(line.before, "eos")
            if line.intervention is not None:
                self._done[row].interventions.append(line.intervention)
            return
        cut = ending.stops.cut(line) if ending.stops is not None else None
        if cut is not None:
            self._done[row] = ending.close(cut[0], "stop", cut[1])
        elif position + 1 - line.before_answer == self._decoding.max_new_tokens:
            self._done[row] = ending.close(line, "length")
        else:
            grown.append(line)

    def _pick(self, line: Line, scores: torch.Tensor, preferred: int, position: int) -> Line | None:
        """The line one token further on, or None where its constraints leave none."""
        state, decoding = line.state, self._decoding
        if state is None:
            return line.then(_sample(scores, preferred, decoding, line.row, position), None, 0.0, None)
        refused, token = not allows(state, preferred), preferred
        try:
            if refused or decoding.temperature:  # else no mask is needed: most tokens cost a lookup
                scores = scores.clone()
                forbid(scores, state.mask())
                token = int(scores.argmax())
                if not bool(torch.isfinite(scores[token])):
                    raise DeadEnd(["the constraint"], state.explain(preferred))
                token = _sample(scores, token, decoding, line.row, position)
        except DeadEnd as dead:
            done = self._done[line.row] = self._ending.close(line, "dead_end", failure=str(dead))
            done.interventions.append(Intervention(position, preferred, None, state.explain(preferred)))
            return None
        told = Intervention(position, preferred, token, state.explain(preferred)) if refused else None
        return line.then(token, _after_token(state, token, self._ending), 0.0, told)


def _after_token(state: ConstraintState, token: int, ending: Ending) -> ConstraintState:
    return state if token in ending.eos_ids else state.advance(token)


def forbid(scores: torch.Tensor, mask: TokenMask) -> None:
    """Set every refused token's score `(V,)` to minus infinity, in place."""
    if mask.banned is not None and scores.device.type == "cpu":
        # The same memory, by numpy: faster than torch for few ids.
        scores.numpy()[mask.banned.astype(np.intp, copy=False)] = -np.inf
    elif mask.banned is not None:
        scores[torch.from_numpy(mask.banned.astype(np.int64, copy=False)).to(scores.device)] = -torch.inf
    else:
        keep = torch.from_numpy(allowed_bool(mask, scores.shape[-1])).to(scores.device)
        scores.masked_fill_(~keep, -torch.inf)


def _sample(scores: torch.Tensor, best: int, decoding: Decoding, row: int, position: int) -> int:
    if decoding.temperature == 0.0:
        return best
    probabilities = torch.softmax(scores / decoding.temperature, -1).cpu().numpy().astype(np.float64)
    order = np.argsort(-probabilities)
    kept = order[: int(np.searchsorted(np.cumsum(probabilities[order]), decoding.top_p)) + 1]
    rng = np.random.default_rng([decoding.seed, row, position])
    return int(rng.choice(kept, p=probabilities[kept] / probabilities[kept].sum()))
