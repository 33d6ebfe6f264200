"""Answers about images: what is decoded step by step and side by side is what one pass over each whole row gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from r1core.api import Example, Message, UserError
from r1core.data import png
from r1core.data.packing import pack_rows
from r1core.data.tokens import Encoded, Slot, prompt_of
from r1core.decode.generate import Decoding
from r1core.decode.session import Session
from r1core.model.adapted import LanguageModel
from r1core.model.layers import ExtraLayers
from r1core.model.scores import logits_at
from r1core.selection import Selection
from r1core.testing.tiny_tower import tiny_tower_dir
from r1core.workbench import open_bench

from .conftest import save_adapter
from .test_session import COMPUTE

NEW, IMAGES = 5, 3
LABELS = ("Cardiology", "Cardiac surgery", "Dermatology")
RECIPE = """\
[run]
name = "own"
[model]
path = "{model}"
[model.vision]
path = "tower"
train_tower = {trained}
[data.files]
train = "d.jsonl"
[data.columns]
images = "scan"
"""


@torch.no_grad()
def opened(model: LanguageModel, layers: ExtraLayers) -> None:
    torch.manual_seed(5)
    for layer in layers.layers:
        layer.gate.normal_(0, 3)  # type: ignore[union-attr, operator]
    for name, parameter in layers.named_parameters():
        if "tower" in name:
            parameter.add_(0.02)


@pytest.fixture(scope="module", params=["false", "true"], ids=["frozen", "trained"])
def session(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, r1core_tiny_model: Path
) -> Session:
    folder = tmp_path_factory.mktemp("images")
    tiny_tower_dir(folder / "tower")
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (16 + number, 16, 3), dtype=np.uint8)
        (folder / f"{number}.png").write_bytes(png.encode(pixels))
    (folder / "d.jsonl").write_text(json.dumps({"text": "heart", "answer": "Cardiology", "scan": "0.png"}))
    (folder / "recipe.toml").write_text(RECIPE.format(model=r1core_tiny_model, trained=request.param))
    bench = open_bench(Selection(recipe=folder / "recipe.toml", run=folder / "run"))
    save_adapter(bench, opened)
    return Session(bench, COMPUTE, adapted=True)


def examples(session: Session) -> list[Example]:
    folder = session.bench.directory.parent
    texts = ("What is seen?", "What is seen, and where? A longer question.")
    shown = ((0,), (1,), (), (2, 0), (1,))
    return [
        Example(str(i), (Message("user", texts[i % 2]),), "t", images=tuple(str(folder / f"{n}.png") for n in numbers))
        for i, numbers in enumerate(shown)
    ]


@torch.no_grad()
def whole(session: Session, example: Example, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities behind each of a row's last tokens, from one pass over the row, read as training reads it."""
    ids, slots = session.renderer.encode_prompt(prompt_of(example))
    end = len(ids) + len(tokens)
    seen = tuple(Slot(slot.kind, slot.start, end, slot.values) for slot in slots)
    batch = pack_rows([Encoded("row", ids, (*tokens, 0), seen)], session.bench.chain.kinds, torch.float32)
    with session.layers.using(batch.features):
        return torch.log_softmax(logits_at(session.model, batch).float(), -1)


def naive(session: Session, example: Example) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < NEW:
        token = int(whole(session, example, tokens)[-1].argmax())
        if token == session.bench.tokenizer.eos_token_id:
            break
        tokens.append(token)
    return tokens


def test_a_batch_answers_as_whole_rows_do(session: Session) -> None:
    asked = examples(session)
    found = [one.completion.tokens for one in session.answer(asked, Decoding(NEW))]
    assert found == [naive(session, one) for one in asked]
    assert len({tuple(tokens) for tokens in found}) > 2  # the images make the difference


def test_the_given_start_of_an_answer_sees_the_image_too(session: Session) -> None:
    asked = examples(session)[:2]
    start = list(session.renderer.start_ids("Card"))
    for example, answer in zip(asked, session.answer(asked, Decoding(1), prefix="Card"), strict=True):
        expected = int(whole(session, example, start)[-1].argmax())
        assert answer.completion.tokens in ([expected], [])


def test_labels_are_scored_with_the_image(session: Session) -> None:
    asked, tree = examples(session), session.label_tree(LABELS)
    _, scores = session.answer_and_score(asked, Decoding(1), tree)
    alone = [session.answer_and_score([one], Decoding(1), tree)[1] for one in asked]
    assert np.allclose(scores, np.concatenate(alone), atol=1e-4)
    for example, row in zip(asked, scores, strict=True):  # two labels that part once: their scores at that one point
        paths = [session.renderer.response_ids(label) for label in LABELS]
        depth = next(d for d in range(9) if len({path[d] for path in paths[:2]}) > 1)
        at = whole(session, example, list(paths[0][:depth]))[-1]
        first, second = at[paths[0][depth]], at[paths[1][depth]]
        assert row[0] - row[1] == pytest.approx(float(first - second), abs=1e-3)


def test_beams_fork_with_their_images(session: Session) -> None:
    asked = examples(session)
    together = session.answer(asked, Decoding(NEW, beams=3))
    alone = [session.answer([one], Decoding(NEW, beams=3))[0] for one in asked]
    assert [a.completion.tokens for a in together] == [a.completion.tokens for a in alone]


def test_the_base_sees_no_image(session: Session) -> None:
    one, other = examples(session)[0], examples(session)[2]
    with session.as_base():
        found = session.answer([one, other], Decoding(NEW))
    assert found[0].completion.tokens == found[1].completion.tokens


def test_a_missing_image_is_refused(session: Session) -> None:
    with pytest.raises(UserError, match="no such image"):
        session.answer([Example("x", (Message("user", "?"),), "t", images=("/nowhere.png",))], Decoding(NEW))
