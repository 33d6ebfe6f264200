"""What layers say of a prompt reaches that prompt's own constraints, alone and in a packed batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from r1core.api import Example, Message, PluginError, UserError
from r1core.decode.generate import Decoding
from r1core.decode.session import Session
from r1core.model.probe import Compute
from r1core.testing.tiny import VOCABULARY, tiny_model
from r1core.workbench import Workbench

from ..conftest import FEATURE, heart_plugin
from .conftest import open_heart, save_adapter

COMPUTE = Compute("cpu", "fp32", 1, 0.0)
FIRST = 100  # the token that the constraint leaves where the layer says 0
PLUGIN = heart_plugin(
    FEATURE,
    """
import numpy as np


def silent(width):
    import torch

    class Silent(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vector = torch.nn.Parameter(torch.zeros(width))

        def forward(self, hidden, features):
            return self.vector.expand_as(hidden)

    return Silent()


def said(module, hidden, features):
    slots = features["heart/word"]
    if hidden.shape[1] > 60:
        raise ZeroDivisionError("too long for me")
    return {
        "words": int(slots.mask.sum()),
        "places": [(int(a), int(b)) for a, b in zip(slots.start[0], slots.end[0])],
        "hidden": hidden,
        "strongest": int(hidden[0, -1].argmax()),
    }


class Only:
    def __init__(self, token):
        self.key = token

    def mask(self):
        ids = np.arange(400, dtype=np.int32)
        return api.TokenMask(banned=ids[ids != self.key])

    def advance(self, token):
        return self

    def explain(self, token):
        return (api.Reason("only", "the layer", str(self.key)),)


class Says:
    name = "heart/says"
    told = []

    def start(self, request):
        self.told.append(request.outputs)
        if "heart/silent" not in request.outputs:
            return None
        found = request.outputs["heart/silent"]
        return Only(100 + 40 * found["words"] + found["strongest"])

    def fingerprint(self):
        return "1"


@api.hookimpl
def extra_layer(model):
    return [api.LayerSpec("heart/silent", "block:0", silent, ("heart/word",), output=said)]


@api.hookimpl
def decode_constraint():
    return [Says()]
""",
)
TEXTS = ("Which specialty treats the heart?", "Which specialty treats lungs, please?", "Which heart to heart?")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, r1core_tiny_model: Path) -> Workbench:
    opened = open_heart(tmp_path_factory.mktemp("outputs"), r1core_tiny_model, PLUGIN, '[data]\nkind = "text"')
    save_adapter(opened)
    return opened


@pytest.fixture(scope="module")
def session(bench: Workbench) -> Session:
    return Session(bench, COMPUTE, adapted=True)


@pytest.fixture
def told(bench: Workbench) -> list[dict[str, Any]]:
    """What the constraint was told, request by request."""
    (constraint,) = bench.constraints.constraints
    heard: list[dict[str, Any]] = constraint.inner.told  # type: ignore[attr-defined]
    heard.clear()
    return heard


def examples(bench: Workbench, *texts: str) -> list[Example]:
    return [bench.chain.annotate(Example(text, (Message("user", text),), "own")) for text in texts]


def answered(session: Session, asked: list[Example], **options: Any) -> list[list[int]]:
    done = session.answer(asked, Decoding(3), [session.constraint(e) for e in asked], **options)
    return [answer.completion.tokens for answer in done]


@torch.no_grad()
def strongest(session: Session, example: Example) -> int:
    """From the bare model, alone: the first block's output at the prompt's last token."""
    ids = torch.tensor([session.prompt(example)[0]])
    states = tiny_model()(input_ids=ids, output_hidden_states=True).hidden_states
    return int(states[1][0, -1].argmax())


def test_a_constraint_bans_what_the_layer_makes_it_ban(
    bench: Workbench, session: Session, told: list[dict[str, Any]]
) -> None:
    for words, example in zip((1, 0, 2), examples(bench, *TEXTS), strict=True):
        token = FIRST + 40 * words + strongest(session, example)
        assert answered(session, [example]) == [[token] * 3]
    assert len(told) == 3


def test_in_a_packed_batch_each_row_gets_the_output_that_it_gets_alone(
    bench: Workbench, session: Session, told: list[dict[str, Any]]
) -> None:
    asked = examples(bench, *TEXTS)
    apart = [answered(session, [example])[0] for example in asked]
    alone = [outputs["heart/silent"] for outputs in told]
    told.clear()
    assert answered(session, asked) == apart
    assert len({tokens[0] for tokens in apart}) == 3
    for outputs, one, example in zip(told, alone, asked, strict=True):
        together = outputs["heart/silent"]
        assert together["hidden"].shape == (1, len(session.prompt(example)[0]), 32)
        assert torch.allclose(together["hidden"], one["hidden"], atol=1e-5)
        assert together["places"] == one["places"] == [(s.start, s.end) for s in session.prompt(example)[1]]


def test_the_given_start_of_the_answer_is_among_what_was_read(
    bench: Workbench, session: Session, told: list[dict[str, Any]]
) -> None:
    (example,) = examples(bench, TEXTS[1])
    start = bench.tokenizer("Neuro", add_special_tokens=False)["input_ids"]
    with pytest.raises(UserError, match="the given start of the answer is refused by only"):
        answered(session, [example], prefix="Neuro")  # the constraint allows one token, and it is none of these
    assert told[0]["heart/silent"]["hidden"].shape[1] == len(session.prompt(example)[0]) + len(start)


def test_where_the_layers_are_off_nothing_is_said_of_them(
    bench: Workbench, session: Session, told: list[dict[str, Any]]
) -> None:
    asked = examples(bench, *TEXTS)
    with session.as_base():
        base = answered(session, asked)
    assert told == [{}, {}, {}]
    assert all(0 <= token < VOCABULARY for tokens in base for token in tokens)
    bare = Session(bench, COMPUTE, adapted=False)
    assert answered(bare, asked) == base


def test_where_no_constraint_waits_no_layer_is_asked(bench: Workbench, session: Session) -> None:
    too_long = examples(bench, "a long question " * 12)
    assert session.answer(too_long, Decoding(2))[0].completion.tokens
    assert session.answer_and_score(too_long, Decoding(2), session.label_tree(["a", "b"]))[1].shape == (1, 2)


def test_no_rules_starts_no_constraint(bench: Workbench, session: Session, told: list[dict[str, Any]]) -> None:
    (example,) = examples(bench, TEXTS[0])
    assert session.constraint(example, rules=False) is None
    start = session.constraint(example, ("Cardiology",), rules=False)
    (done,) = session.answer([example], Decoding(40), [start])
    assert (done.text, told) == ("Cardiology", [])


def test_an_output_that_fails_stops_the_generation_in_its_plugins_name(bench: Workbench, session: Session) -> None:
    asked = examples(bench, TEXTS[0], "a long question " * 12)
    with pytest.raises(PluginError, match="plugin 'heart' failed in hook 'extra_layer': heart/silent: too long for me"):
        answered(session, asked)
    assert answered(session, asked[:1])  # nothing is left behind
