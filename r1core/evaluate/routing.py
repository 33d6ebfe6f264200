"""Where an R1 sends the tokens of the test split: counts by layer, domain and expert, for the report.

Every test row is read once, as it is in training with its gold answer, apart from the others and without padding in the
counts. A row's domain is its task, where there are several; else the data set that it comes from, where these are
several; else the label that is right. None of these is the text of a record.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from r1core.api import JSON, Example
from r1core.data.packing import Batch, Layout
from r1core.data.padding import by_length, laid_out
from r1core.data.tokens import Encoded
from r1core.decode.session import Session
from r1core.evaluate.predictions import gold_of
from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.statistics import NOBODY, RoutingCounts
from r1core.model.scores import body_of, causal_of, inputs_of
from r1core.runs.files import write_atomic

if TYPE_CHECKING:
    from r1core.workbench import Workbench

FILE = "routing.json"
"""Its name in `evaluation/`."""
PASS = 8192
"""Tokens of a pass, padding included."""
MOST = 24
"""Domains that are told apart; the smallest of more are one."""
OTHERS = "all others"


def write_routing(session: Session, test: Sequence[Example]) -> None:
    """Write `evaluation/routing.json`; for a model without R1's routers there is none."""
    path = session.bench.run.evaluation / FILE
    path.unlink(missing_ok=True)  # of an earlier recipe
    model = causal_of(session.model)
    if isinstance(model, R1ForCausalLM) and test:
        write_atomic(path, json.dumps(_counted(session, model, test), ensure_ascii=False) + "\n")


@torch.no_grad()
def _counted(session: Session, model: R1ForCausalLM, test: Sequence[Example]) -> dict[str, JSON]:
    by, domains = domains_of(session.bench, test)
    names = sorted(set(domains), key=lambda name: (name == OTHERS, name))
    rows = [session.renderer.encode(example) for example in test]
    owners = [names.index(domain) for domain in domains]
    counts = RoutingCounts(model, len(names))
    apart = Layout(share=False, apart=not any(row.task for row in rows))
    parts = by_length([[row.length] for row in rows], PASS) if apart.apart else [[i] for i in range(len(rows))]
    kinds = session.bench.chain.kinds
    for part in parts:
        batch = laid_out([rows[i] for i in part], kinds, model.dtype, apart).to(model.device)
        owner = _owner(batch, [rows[i] for i in part], [owners[i] for i in part]).to(model.device)
        with session.layers.using(batch.features), counts.counting(owner):
            body_of(model)(**inputs_of(batch))
    table, top = counts.table.cpu(), model.config.num_experts_per_tok
    return {
        "split": "test",
        "by": by,
        "rows": len(rows),
        "tokens": int(table[0].sum()) // top if len(table) else 0,
        "experts": model.config.num_experts,
        "expert_groups": model.config.expert_groups,
        "experts_per_token": top,
        "domains": names,
        "counts": table.tolist(),
    }


def domains_of(bench: Workbench, examples: Sequence[Example]) -> tuple[str, list[str]]:
    """What rows are told apart by (`task`, `data set`, `label` or nothing), and the domain of each."""
    tasks = {example.task for example in examples}
    own_files = bench.recipe.data.files is not None  # a row's source is then a line of a file
    sources = set() if own_files else {example.source for example in examples}
    if len(tasks) > 1:
        by, found = "task", [example.task for example in examples]
    elif len(sources) > 1:
        by, found = "data set", [example.source for example in examples]
    elif choices := bench.tasks[next(iter(tasks))].choices:
        by, found = "label", [gold_of(example, choices) for example in examples]
    else:
        return "", ["all rows"] * len(examples)
    largest = {name for name, _ in Counter(found).most_common(MOST)}
    return by, [name if name in largest else OTHERS for name in found]


def _owner(batch: Batch, rows: Sequence[Encoded], owners: Sequence[int]) -> torch.Tensor:
    """The domain of each token of a batch whose rows stand side by side, or of one row; padding has none. (N,)"""
    made = torch.full(tuple(batch.input_ids.shape), NOBODY, dtype=torch.int64)
    for line, row, owner in zip(made, rows, owners, strict=True):
        line[: row.length - 1] = owner  # the last token of the answer is predicted, never read
    return made.flatten()
