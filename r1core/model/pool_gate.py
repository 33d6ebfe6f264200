"""What tells the tasks of a pool apart: a learned token each, a gate over the adapters, a place before each row.

`g(task) = softmax(W t)`, W one row an adapter, t the task's token. With `top_k` the k heaviest are kept and divided by
their sum (as a mixture of experts does it, arXiv:1701.06538, section 2.1, without noise); with `hard` a task has its
own adapter and there is no gate. A prepended token is `P t`, in the place of the embedding of the row's first position.

Tasks come in cohorts: those trained together, then those added later. A task is gated over the adapters that existed
when it was trained and no others, in products of the same shapes ever after, so its weights do not change by a bit.

N = adapters, n = tasks of a cohort, W = width of a token, D = width of the model.

The start. Tokens and gate rows start orthogonal, a row of the gate along the token of the same number, so long that a
task's own adapter has the weight 1/2 (`OWN_SHARE`) and the others share the rest: were all weights equal, every adapter
would get the sum of all tasks' gradients, and only the random A would ever make two of them differ. P starts so that a
prepended token is as long as an embedding of the model is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from r1core.recipe.pool import Routing

OWN_SHARE = 0.5
"""Weight of a task's own adapter at the start, of three or more; of two it is e / (1 + e), of one it is 1."""


class Gate(nn.Module):
    """Tokens, gate rows and the projection of a pool. Parameters that the routing does not use are not there.

    Parameters
    ----------
    hidden_size : D where the tokens are prepended, else 0.
    scale : root mean square of an entry of a prepended token at the start.
    """

    def __init__(self, *, routing: Routing, top_k: int, width: int, hidden_size: int, scale: float) -> None:
        super().__init__()
        self.cohorts: list[int] = []
        self.routing, self.top_k, self.width = routing, top_k, width
        self.tokens, self.rows = nn.ParameterList(), nn.ParameterList()
        self.project: nn.Parameter | None = None
        if hidden_size:
            self.project = nn.Parameter(torch.randn(hidden_size, width) * scale)

    def grow(self, size: int) -> None:
        """Add a cohort of so many tasks, each with an adapter; what is there is no longer trained."""
        self.requires_grad_(False)
        if self.project is not None and not self.cohorts:
            self.project.requires_grad_(True)
        self.cohorts.append(size)
        if self.project is None and self.routing == "hard":
            return
        tokens = _orthonormal(size, self.width, [p.detach().cpu() for p in (*self.tokens, *self.rows)])
        self.tokens.append(nn.Parameter(tokens))
        if self.routing != "hard":
            self.rows.append(nn.Parameter(tokens * _lead(sum(self.cohorts))))

    def weights(self) -> torch.Tensor:
        """Weight of each adapter for each task, (N, N) fp32, in the order of tasks; rows sum to 1."""
        total = sum(self.cohorts)
        device = self.rows[0].device if len(self.rows) else torch.device("cpu")
        parts = []
        for cohort, size in enumerate(self.cohorts):
            seen = sum(self.cohorts[: cohort + 1])
            if self.routing == "hard":
                parts.append(torch.eye(total, device=device)[seen - size : seen])
                continue
            rows = self.rows[0] if cohort == 0 else torch.cat([*self.rows[: cohort + 1]])
            own = torch.softmax(self.tokens[cohort] @ rows.t(), dim=-1)  # (n, adapters that existed)
            if self.routing == "top_k":
                kept = own.topk(min(self.top_k, seen), dim=-1)
                heaviest = kept.values / kept.values.sum(-1, keepdim=True)
                own = torch.zeros_like(own).scatter(-1, kept.indices, heaviest)
            parts.append(nn.functional.pad(own, (0, total - seen)))
        return torch.cat(parts)

    def prepended(self, tasks: Sequence[int]) -> torch.Tensor:
        """What stands before rows of these tasks, (M, D) fp32."""
        assert self.project is not None
        ends = [sum(self.cohorts[: i + 1]) for i in range(len(self.cohorts))]
        places = [next((c, task - end + self.cohorts[c]) for c, end in enumerate(ends) if task < end) for task in tasks]
        return torch.stack([self.tokens[c][i] @ self.project.t() for c, i in places])


def _lead(adapters: int) -> float:
    """Logit by which one of so many adapters has the weight `OWN_SHARE`, the others' logits being 0."""
    return math.log(OWN_SHARE * max(1, adapters - 1) / (1 - OWN_SHARE)) if adapters > 2 else 1.0


def _orthonormal(number: int, width: int, others: Sequence[torch.Tensor]) -> torch.Tensor:
    """Random unit vectors (number, width), orthogonal to one another and to all of `others`."""
    fixed = torch.cat([*others, torch.randn(number, width)])
    found, _ = torch.linalg.qr(fixed.t().double())
    return found.t()[-number:].float().contiguous()
