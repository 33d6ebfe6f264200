"""A pool of task adapters opened for inference: batches that mix tasks answer as each row alone, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from r1core.api import Example, Message, UserError
from r1core.data.packing import pack_rows
from r1core.data.tokens import Encoded, prompt_of
from r1core.decode.generate import Decoding
from r1core.decode.session import Session
from r1core.model.adapter import add_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.load import load_model
from r1core.model.pool import Wanted
from r1core.model.scores import logits_at
from r1core.workbench import Workbench

from .conftest import open_heart
from .test_session import COMPUTE, LABELS, PLUGIN, set_by_hand

TABLES = '[adapter]\nrank = 4\n[train]\nobjective = "multitask"\n[pool]\nrouting = "{}"\nprepend = {}\n'
NEW = 6


def opened(folder: Path, model: Path, routing: str, prepend: str) -> Workbench:
    bench = open_heart(folder, model, PLUGIN, TABLES.format(routing, prepend))
    base = load_model(bench.base, precision="fp32", attention="sdpa")
    adapted = add_adapter(base, bench.recipe.adapter, 0, wanted=Wanted(bench.recipe.pool, ("one", "two", "three")))
    layers = ExtraLayers(base, bench.layer_specs(base.config), 0)
    set_by_hand(adapted.model, layers)
    bench.run.adapter.mkdir(parents=True)
    adapted.save(bench.run.adapter)
    layers.save(bench.run.adapter)
    return bench


@pytest.fixture(
    scope="module", params=[("soft", "true"), ("hard", "true"), ("hard", "false"), ("top_k", "true")], ids="-".join
)
def session(request: Any, tmp_path_factory: pytest.TempPathFactory, r1core_tiny_model: Path) -> Session:
    return Session(opened(tmp_path_factory.mktemp("pool"), r1core_tiny_model, *request.param), COMPUTE, adapted=True)


def examples(session: Session) -> list[Example]:
    texts = ("Which specialty treats the heart?", "lungs", "The heart again; and a longer question about it.")
    tasks = ("one", "two", "one", "three", "two", "one")
    made = [Example(str(i), (Message("user", texts[i % 3]),), task) for i, task in enumerate(tasks)]
    return [session.bench.chain.annotate(one) for one in made]


@torch.no_grad()
def naive(session: Session, example: Example) -> list[int]:
    """The likeliest tokens, each from one pass over the whole row alone, read as training reads it."""
    ids, slots = session.renderer.encode_prompt(prompt_of(example))
    tokens: list[int] = []
    while len(tokens) < NEW:
        row = Encoded("row", (*ids, *tokens), (0,), slots, example.task)
        batch = pack_rows([row], session.bench.chain.kinds, torch.float32)
        with session.layers.using(batch.features):
            token = int(logits_at(session.model, batch)[0].argmax())
        if token == session.bench.tokenizer.eos_token_id:
            break
        tokens.append(token)
    return tokens


def test_a_mixed_batch_answers_as_every_row_by_itself(session: Session) -> None:
    asked = examples(session)
    found = [one.completion.tokens for one in session.answer(asked, Decoding(NEW))]
    assert found == [naive(session, one) for one in asked]
    assert found == [session.answer([example], Decoding(NEW))[0].completion.tokens for example in asked]
    # One prompt under three tasks: the task is what differs.
    texts = [example.messages for example in asked]
    others = [Example("x", texts[0], task) for task in ("one", "two", "three")]
    assert len({tuple(one.completion.tokens) for one in session.answer(others, Decoding(NEW))}) > 1


def test_labels_are_scored_in_a_mixed_batch_as_alone(session: Session) -> None:
    asked, tree = examples(session), session.label_tree(LABELS)
    answers, scores = session.answer_and_score(asked, Decoding(NEW), tree)
    each = [session.answer_and_score([one], Decoding(NEW), tree) for one in asked]
    assert np.allclose(scores, np.concatenate([one for _, one in each]), atol=1e-4)
    assert [a.completion.tokens for a in answers] == [a[0].completion.tokens for a, _ in each]


def test_the_base_reads_no_task(session: Session) -> None:
    asked = examples(session)
    plain = Session(session.bench, COMPUTE, adapted=False)
    expected = [one.completion.tokens for one in plain.answer(asked, Decoding(NEW))]
    with session.as_base():
        assert [one.completion.tokens for one in session.answer(asked, Decoding(NEW))] == expected
    assert [one.completion.tokens for one in session.answer(asked, Decoding(NEW))] != expected


def test_a_task_that_is_not_in_the_pool_is_refused(session: Session) -> None:
    unknown = Example("x", (Message("user", "lungs"),), "four")
    with pytest.raises(UserError, match="task 'four' is not in this pool"):
        session.answer([unknown], Decoding(NEW))
