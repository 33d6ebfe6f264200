"""Beam search under constraints, as transformers has it (`early_stopping = False`, Wu et al. 2016 for the penalty).

A refused token's log-probability is minus infinity; the others keep theirs, so that what is found is the text that the
model holds most probable among those allowed. Constraint states are immutable, so beams fork and are dropped freely.
"""

# B = beams, V = vocabulary

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from r1core.decode.constraints import DeadEnd, is_allowed
from r1core.decode.ending import Ending
from r1core.decode.search import forbid
from r1core.decode.values import Completion, Decoding, Finish, Intervention, Line


@dataclass(frozen=True, slots=True)
class _Ended:
    """A finished beam: its score by length, the line that stands, how it ended, bytes of a cut token, and the line
    with the token that ended it."""

    score: float
    line: Line
    finish: Finish
    tail: bytes
    last: Line


class Beams:
    """The best lines of each row, `decoding.beams` at most."""

    def __init__(self, rows: int, decoding: Decoding, ending: Ending) -> None:
        self._decoding, self._ending = decoding, ending
        self._ended: list[list[_Ended]] = [[] for _ in range(rows)]
        self._dead: dict[int, Completion] = {}

    def grow(self, lines: Sequence[Line], logits: torch.Tensor, position: int) -> list[Line]:
        """The best continuations of each row that can still improve on what it has."""
        grown: list[Line] = []
        preferred = logits.argmax(-1).tolist()
        scores = torch.log_softmax(logits, -1)
        told = [self._constrain(line, scores[i], preferred[i], position) for i, line in enumerate(lines)]
        for row, group in groupby(range(len(lines)), key=lambda i: lines[i].row):
            members = list(group)
            totals = scores[members] + torch.tensor([lines[i].score for i in members], device=scores.device)[:, None]
            candidates = self._best(totals, [lines[i] for i in members], [told[i] for i in members])
            running = self._sort_out(row, candidates, position)
            if running and self._may_improve(row, running[0], position):
                grown.extend(running)
        return grown

    def completions(self) -> list[Completion]:
        """The best answer of each row; one that misses something required only where all do."""
        return [self._choose(row, ended) for row, ended in enumerate(self._ended)]

    def _constrain(self, line: Line, scores: torch.Tensor, preferred: int, position: int) -> Intervention | None:
        """Forbid what the line's constraints refuse; return what they refused, where the model preferred it."""
        if line.state is None:
            return None
        try:
            mask = line.state.mask()
        except DeadEnd as dead:
            scores.fill_(-torch.inf)
            self._note_dead(line, preferred, position, str(dead))
            return None
        forbid(scores, mask)
        if is_allowed(mask, preferred):
            return None
        if not bool(torch.isfinite(scores).any()):
            self._note_dead(line, preferred, position, str(DeadEnd(["the constraint"], line.state.explain(preferred))))
        return Intervention(position, preferred, None, line.state.explain(preferred))

    def _note_dead(self, line: Line, preferred: int, position: int, failure: str) -> None:
        assert line.state is not None
        done = self._dead[line.row] = self._ending.close(line, "dead_end", failure=failure)
        done.interventions.append(Intervention(position, preferred, None, line.state.explain(preferred)))

    def _best(
        self, totals: torch.Tensor, lines: Sequence[Line], told: Sequence[Intervention | None]
    ) -> list[tuple[float, int, Line, Intervention | None]]:
        """`(score, token, line, intervention)` of the best continuations, enough for `beams` lines to go on."""
        keep = max(2, 1 + len(self._ending.eos_ids)) * self._decoding.beams
        best = totals.flatten().topk(min(keep, totals.numel()))
        found = []
        for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            at, token = divmod(index, totals.shape[-1])
            if score > -torch.inf:
                found.append((score, token, lines[at], told[at]))
        return found

    def _sort_out(
        self, row: int, candidates: Sequence[tuple[float, int, Line, Intervention | None]], position: int
    ) -> list[Line]:
        """Put aside what ends; return what goes on, the best first."""
        running: list[Line] = []
        by_length = (position + 1) ** self._decoding.length_penalty
        for rank, (score, token, line, told) in enumerate(candidates):
            ends = token in self._ending.eos_ids
            state = line.state if ends or line.state is None else line.state.advance(token)
            if told is not None:
                told = Intervention(told.position, told.refused, token, told.reasons)
            grown = line.then(token, state, score, told)
            cut = None if ends or self._ending.stops is None else self._ending.stops.cut(grown)
            last = position + 1 - grown.before_answer == self._decoding.max_new_tokens
            if not (ends or last or cut):
                running.append(grown)
            elif rank < self._decoding.beams:
                standing, tail = (line, b"") if ends else cut or (grown, b"")
                finish: Finish = "eos" if ends else "stop" if cut else "length"
                self._ended[row].append(_Ended(score / by_length, standing, finish, tail, grown))
        self._ended[row] = sorted(self._ended[row], key=lambda e: -e.score)[: self._decoding.beams]
        return running[: self._decoding.beams]

    def _may_improve(self, row: int, best: Line, position: int) -> bool:
        ended = self._ended[row]
        reachable = best.score / (position + 1) ** self._decoding.length_penalty
        return len(ended) < self._decoding.beams or reachable > ended[-1].score

    def _choose(self, row: int, ended: Sequence[_Ended]) -> Completion:
        closed = []
        for one in ended:
            done = self._ending.close(one.line, one.finish, one.tail)
            done.interventions = one.last.interventions()
            if done.finish != "unmet":
                return done
            closed.append(done)
        return closed[0] if closed else self._dead[row]
