"""A model opened for inference through `open_bench`: adapter and layers on and off, scoring, constraints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from r1core.api import Example, Message, UserError
from r1core.decode.generate import Decoding
from r1core.decode.session import Session
from r1core.model.layers import ExtraLayers
from r1core.model.probe import Compute
from r1core.testing.tiny import tiny_tokenizer
from r1core.workbench import Workbench

from ..conftest import FEATURE, heart_plugin
from .conftest import open_heart, save_adapter

COMPUTE = Compute("cpu", "fp32", 1, 0.0)
LABELS = ("Cardiology", "Cardio", "Neurology")
PLUGIN = heart_plugin(
    FEATURE,
    """

def vector(width):
    import torch

    class Vector(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vector = torch.nn.Parameter(torch.randn(width))

        def forward(self, hidden, features):
            slots = features["heart/word"]
            place = torch.arange(hidden.shape[1]).view(1, -1, 1)
            covered = (place >= slots.start[:, None]) & (place < slots.end[:, None])
            return covered.any(-1, keepdim=True) * self.vector

    return Vector()


@api.hookimpl
def extra_layer(model):
    return [api.LayerSpec("heart/vector", "block:0", vector, ("heart/word",))]
""",
)


@torch.no_grad()
def set_by_hand(model: Any, layers: ExtraLayers) -> None:
    """Adapter and layer to what does something to a random model's answers."""
    for parameter in [p for p in model.parameters() if p.requires_grad] + list(layers.parameters()):
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) / 3)
    for parameter in layers.parameters():
        parameter.mul_(10)  # loud enough to be heard through a random model


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, r1core_tiny_model: Path) -> Workbench:
    opened = open_heart(tmp_path_factory.mktemp("session"), r1core_tiny_model, PLUGIN, "[adapter]\nrank = 4")
    save_adapter(opened, set_by_hand)
    return opened


@pytest.fixture(scope="module")
def adapted(bench: Workbench) -> Session:
    return Session(bench, COMPUTE, adapted=True)


@pytest.fixture(scope="module")
def examples(bench: Workbench) -> list[Example]:
    texts = ("Which specialty treats the heart?", "lungs", "The heart again; and a longer question about it.")
    return [bench.chain.annotate(Example(str(i), (Message("user", t),), "own")) for i, t in enumerate(texts)]


def as_lists(answers: Any) -> list[tuple[str, list[int], str]]:
    return [(a.text, a.completion.tokens, a.completion.finish) for a in answers]


def test_as_base_is_the_bare_model(bench: Workbench, adapted: Session, examples: list[Example]) -> None:
    bare = Session(bench, COMPUTE, adapted=False)
    expected, scores = bare.answer_and_score(examples, Decoding(8), bare.label_tree(LABELS))
    with adapted.as_base():
        found, base_scores = adapted.answer_and_score(examples, Decoding(8), adapted.label_tree(LABELS))
    assert as_lists(found) == as_lists(expected)
    assert np.array_equal(base_scores, scores)
    own, own_scores = adapted.answer_and_score(examples, Decoding(8), adapted.label_tree(LABELS))
    assert as_lists(own) != as_lists(expected)
    assert not np.allclose(own_scores, scores)


OTHERS = {
    "gelu_lora": '[adapter]\nkind = "gelu_lora"\nrank = 4',
    "dora": '[adapter]\nkind = "dora"\nrank = 4',
    "full": "[strategy]\nuntie = true\n" + "".join(
        f'[strategy.{role}]\nmode = "full"\n' for role in ("embeddings", "norms", "output", "middle_attention")
    ),
}  # fmt: skip


@pytest.mark.parametrize("site", ["block:0", "embedding"])
@pytest.mark.parametrize("kind", OTHERS)
def test_every_kind_of_adapter_answers_with_layers_and_without(
    kind: str, site: str, tmp_path: Path, r1core_tiny_model: Path
) -> None:
    opened = open_heart(tmp_path, r1core_tiny_model, PLUGIN.replace("block:0", site), OTHERS[kind])
    save_adapter(opened, set_by_hand)
    example = opened.chain.annotate(Example("0", (Message("user", "Which specialty treats the heart?"),), "own"))
    session, bare = Session(opened, COMPUTE, adapted=True), Session(opened, COMPUTE, adapted=False)

    def scored(one: Session) -> np.ndarray:
        scores: np.ndarray = one.answer_and_score([example], Decoding(1), one.label_tree(LABELS))[1]
        return scores

    whole = scored(session)
    with session.as_base():
        assert np.array_equal(scored(session), scored(bare))
    session.layers.enabled = False
    without = scored(session)
    assert not np.allclose(whole, without)
    assert not np.allclose(without, scored(bare))


def test_as_base_ends_even_when_its_body_fails(adapted: Session, examples: list[Example]) -> None:
    before = as_lists(adapted.answer(examples, Decoding(4)))
    with pytest.raises(ZeroDivisionError), adapted.as_base():
        raise ZeroDivisionError
    assert as_lists(adapted.answer(examples, Decoding(4))) == before


def test_a_batch_answers_and_scores_as_each_row_alone(adapted: Session, examples: list[Example]) -> None:
    tree = adapted.label_tree(LABELS)
    together, scores = adapted.answer_and_score(examples, Decoding(8), tree)
    for row, example in enumerate(examples):
        (alone,), score = adapted.answer_and_score([example], Decoding(8), tree)
        assert as_lists([together[row]]) == as_lists([alone])
        assert np.allclose(scores[row], score[0], atol=1e-3)
    assert as_lists(adapted.answer(examples, Decoding(8))) == as_lists(together)


def test_the_layer_sees_the_prompts_spans(adapted: Session, examples: list[Example]) -> None:
    (_, slots), (_, none) = adapted.prompt(examples[0]), adapted.prompt(examples[1])
    assert (len(slots), none) == (1, ())
    with_layer = adapted.answer_and_score(examples[:2], Decoding(1), adapted.label_tree(LABELS))[1]
    adapted.layers.enabled = False
    try:
        without = adapted.answer_and_score(examples[:2], Decoding(1), adapted.label_tree(LABELS))[1]
    finally:
        adapted.layers.enabled = True
    assert not np.allclose(with_layer[0], without[0])
    assert np.allclose(with_layer[1], without[1], atol=1e-5)


def test_constrained_to_the_label_set_every_answer_is_a_label(adapted: Session, examples: list[Example]) -> None:
    states = [adapted.constraint(example, LABELS) for example in examples]
    done = adapted.answer(examples, Decoding(40), states)
    assert {a.text for a in done} <= set(LABELS)
    assert {a.completion.finish for a in done} == {"eos"}
    assert adapted.constraint(examples[0]) is None


def test_a_given_start_counts_against_the_constraint(adapted: Session, examples: list[Example]) -> None:
    states = [adapted.constraint(examples[0], LABELS)]
    (done,) = adapted.answer(examples[:1], Decoding(40), states, prefix="Neuro")
    assert done.text == "logy"


def test_labels_are_scored_as_they_are_generated(adapted: Session) -> None:
    tree = adapted.label_tree(LABELS)
    assert [tiny_tokenizer().decode(list(path)) for path in tree.paths] == [f"{label}<|im_end|>" for label in LABELS]


def test_without_an_adapter_the_way_to_one_is_named(bench: Workbench, tmp_path: Path) -> None:
    import dataclasses

    empty = dataclasses.replace(bench, directory=tmp_path / "new")
    with pytest.raises(UserError, match="no adapter here"):
        Session(empty, COMPUTE, adapted=True)
