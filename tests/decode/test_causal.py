"""Features inside answers: one reading for a training row and for the answer that grows, against teacher forcing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from r1core.api import Example, LayerSpec, Message, Reason, SlotFeatures, Span, SpanKind, TokenMask
from r1core.compose import Chain
from r1core.data import codec
from r1core.data.answers import AnswerReader
from r1core.data.packing import pack_rows
from r1core.data.prepare import prepare
from r1core.data.tokens import Encoded, Renderer
from r1core.decode.generate import Decoding, LabelTree, decode
from r1core.decode.prefill import prefill
from r1core.decode.session import Session
from r1core.model.layers import ExtraLayers
from r1core.model.probe import Compute
from r1core.model.scores import logits_at
from r1core.selection import Selection
from r1core.testing.tiny import VOCABULARY, tiny_model, tiny_tokenizer
from r1core.workbench import Workbench, open_bench

from .conftest import save_adapter

NUMBER = SpanKind("t/number", encode=str, decode=str, width=1, feature=lambda v: (float(v),), causal=True)
PATTERNS = {"at its end": r"\d+", "with right context": r"\d+(?= )"}
EOS = tiny_tokenizer().eos_token_id


class Numbers:
    name, after, before, span_kinds = "t/numbers", (), (), (NUMBER,)

    def __init__(self, pattern: str) -> None:
        self.pattern, self.calls = re.compile(pattern), 0

    def __call__(self, example: Example) -> Example:
        self.calls += 1
        return example.with_spans(
            Span(part, found.start(), found.end(), NUMBER.name, found.group())
            for part, message in enumerate(example.messages)
            for found in self.pattern.finditer(message.content)
        )

    def fingerprint(self) -> str:
        return self.pattern.pattern


class Marks(nn.Module):
    """Adds a vector, scaled by the number, at the tokens of each span, and another everywhere."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vector, self.bias = nn.Parameter(torch.randn(width)), nn.Parameter(torch.randn(width) / 4)

    def forward(self, hidden: torch.Tensor, features: Mapping[str, SlotFeatures]) -> torch.Tensor:
        slots = features[NUMBER.name]
        place = torch.arange(hidden.shape[1]).view(1, -1, 1)
        covered = (place >= slots.start[:, None]) & (place < slots.end[:, None]) & slots.mask[:, None]
        return (covered * slots.values[..., 0].log1p()[:, None]).sum(-1, keepdim=True) * self.vector + self.bias


@dataclass(frozen=True)
class Follow:
    """Allows one given token after another."""

    tokens: tuple[int, ...]

    @property
    def key(self) -> tuple[int, ...]:
        return self.tokens

    def mask(self) -> TokenMask:
        return TokenMask(banned=np.delete(np.arange(VOCABULARY, dtype=np.int32), self.tokens[0]))

    def advance(self, token_id: int) -> Follow:
        return Follow(self.tokens[1:])

    def explain(self, token_id: int) -> tuple[Reason, ...]:
        return (Reason("given", "", ""),)


class Setting:
    """A tiny model with a causal layer whose gate is open, and what reads answers for it."""

    def __init__(self, pattern: str, site: str = "block:0") -> None:
        self.annotator = Numbers(pattern)
        self.chain = Chain([self.annotator])
        self.kinds = self.chain.kinds
        self.renderer = Renderer(tiny_tokenizer(), self.kinds)
        self.reader = AnswerReader(self.renderer, self.chain.in_answer)
        self.model = tiny_model(seed=3).requires_grad_(False)
        self.layers = ExtraLayers(self.model, [LayerSpec("t/marks", site, Marks, (NUMBER.name,))], seed=0)
        with torch.no_grad():
            self.layers.layers[0].gate.fill_(1.0)  # type: ignore[union-attr, operator]

    def example(self, question: str, answer: str) -> Example:
        prompt = self.chain.annotate(Example(question, (Message("user", question),), "t"))
        return self.reader.annotated(replace(prompt, messages=(*prompt.messages, Message("assistant", answer))))

    @torch.no_grad()
    def taught(self, *rows: Encoded) -> list[torch.Tensor]:
        """Each row's logits that predict its answer, in one pass over prompt and answer, as in training."""
        batch = pack_rows(rows, self.kinds, torch.float32)
        with self.layers.using(batch.features):
            logits = logits_at(self.model, batch)
        return [logits[batch.row == index] for index in range(len(rows))]

    def stepped(self, *examples: Example) -> list[torch.Tensor]:
        """The same logits token by token through the cache, the answers being forced."""
        rows = [self.renderer.encode(example) for example in examples]
        prompts = [self.renderer.encode_prompt(example.without_answer()) for example in examples]
        start = prefill(
            self.model, self.layers, self.kinds, prompts, answers=[self.reader.begin(example) for example in examples]
        )
        seen, steps = [[logits] for logits in start.logits], iter(range(1, 10**6))

        def watch(module: nn.Module, args: object, output: object) -> None:
            step = next(steps)
            going = [row for row, encoded in enumerate(rows) if step < len(encoded.response)]
            for line, row in enumerate(going):
                seen[row].append(output.logits[0, line])  # type: ignore[attr-defined]

        hook = self.model.register_forward_hook(watch)
        done = decode(self.model, start, Decoding(40), {EOS}, [Follow(row.response) for row in rows])
        hook.remove()
        assert [tuple(c.tokens) for c in done] == [row.response[:-1] for row in rows]
        return [torch.stack(each) for each in seen]


QUESTIONS = (
    ("Take 5 mg or 10?", "Take 798 mg, not 12.5 mg 患 79 times 3 "),
    ("Take 5 mg now?", "no"),
    ("Take what?", "12 and 125 and 4 "),
)


@pytest.mark.parametrize("site", ["embedding", "block:0", "head"])
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_teacher_forcing_equals_decoding_with_the_cache(pattern: str, site: str) -> None:
    setting = Setting(pattern, site)
    examples = [setting.example(*pair) for pair in QUESTIONS]
    rows = [setting.renderer.encode(example) for example in examples]
    assert [sum(slot.start >= len(row.prompt) for slot in row.slots) > 0 for row in rows] == [True, False, True]
    together, packed = setting.stepped(*examples), setting.taught(*rows)
    for index, example in enumerate(examples):
        (alone,), (taught,) = setting.stepped(example), setting.taught(rows[index])
        assert torch.allclose(alone, taught, atol=1e-4)
        assert torch.allclose(together[index], taught, atol=1e-4)
        assert torch.allclose(packed[index], taught, atol=1e-4)
    bare = replace(rows[0], slots=tuple(slot for slot in rows[0].slots if slot.start < len(rows[0].prompt)))
    assert not torch.allclose(setting.taught(bare)[0], setting.taught(rows[0])[0], atol=1e-2)  # they do count


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_text_behind_a_token_leaves_the_logits_before_it_as_they_were(pattern: str) -> None:
    setting = Setting(pattern)
    answers = ("take 798 mg and 3 ", "take 798 kg", "take 7, or 8 ", "take 7")
    rows = [setting.renderer.encode(setting.example("How much?", answer)) for answer in answers]
    logits = [setting.taught(row)[0] for row in rows]
    for one in range(len(rows)):
        for other in range(one):
            pair = zip(rows[one].response, rows[other].response, strict=False)
            alike = next(n for n, (a, b) in enumerate(pair) if a != b)
            assert alike >= 3
            assert torch.allclose(logits[one][: alike + 1], logits[other][: alike + 1], atol=1e-5)


def test_the_given_start_of_an_answer_carries_its_features() -> None:
    setting = Setting(PATTERNS["at its end"])
    example = setting.example("How much?", "take 798 mg")
    row = setting.renderer.encode(example)
    given, rest = row.response[:4], row.response[4:]
    answer = setting.reader.begin(example)
    ids, slots = setting.renderer.encode_prompt(example.without_answer())
    on_given = answer.take(given, len(ids))
    assert slots + on_given == row.slots[: len(slots + on_given)]
    start = prefill(setting.model, setting.layers, setting.kinds, [(ids + given, slots + on_given)], answers=[answer])
    assert torch.allclose(start.logits[0], setting.taught(row)[0][4], atol=1e-4)
    done = decode(setting.model, start, Decoding(20), {EOS}, [Follow(rest)])
    assert tuple(done[0].tokens) == rest[:-1]


def score(tree: LabelTree, column: int, logits: torch.Tensor) -> float:
    """A label's log-probability from the logits that predict its tokens, renormalised where labels part."""
    path, total = tree.paths[column], 0.0
    for depth, token in enumerate(path):
        options = sorted({other[depth] for other in tree.paths if other[:depth] == path[:depth]})
        total += float(torch.log_softmax(logits[depth, options].double(), -1)[options.index(token)])
    return total


@torch.no_grad()
def test_labels_are_scored_with_the_features_that_their_answers_would_have() -> None:
    setting = Setting(PATTERNS["at its end"])
    labels = ("type 79", "type 7", "type 798", "none")
    examples = [setting.example(question, labels[0]) for question, _ in QUESTIONS]
    tree = LabelTree(labels, [setting.renderer.response_ids(label) for label in labels])
    prompts = [setting.renderer.encode_prompt(example.without_answer()) for example in examples]
    start = prefill(setting.model, setting.layers, setting.kinds, prompts, tree.branches,
                    [setting.reader.begin(example) for example in examples])  # fmt: skip
    scores = tree.scores(start.logits, start.extra)
    for line, (question, _) in enumerate(QUESTIONS):
        for column, label in enumerate(labels):
            (logits,) = setting.taught(setting.renderer.encode(setting.example(question, label)))
            assert scores[line, column] == pytest.approx(score(tree, column, logits), abs=1e-4)


def test_without_answers_to_read_no_annotator_is_called() -> None:
    setting = Setting(PATTERNS["at its end"])
    prompts = [setting.renderer.encode_prompt(setting.example("Take 5?", "no").without_answer())]
    calls = setting.annotator.calls
    start = prefill(setting.model, setting.layers, setting.kinds, prompts)
    decode(setting.model, start, Decoding(5), {-1})
    assert setting.annotator.calls == calls


PLUGIN = """
from r1core import api
import test_causal_parts as parts


class Made(api.Plugin):
    @api.hookimpl
    def preprocess(self, ctx):
        return [parts.ANNOTATOR]

    @api.hookimpl
    def extra_layer(self, ctx, model):
        return [api.LayerSpec("t/marks", "block:0", parts.Marks, ("t/number",))]


plugin = Made()
"""
LABELS = ("type 79", "type 7", "type 798", "none")


@torch.no_grad()
def open_the_gate(model: object, layers: ExtraLayers) -> None:
    layers.layers[0].gate.fill_(1.0)  # type: ignore[union-attr, operator]


@pytest.fixture
def bench(tmp_path: Path, r1core_tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A run with the causal layer, its gate open, prepared on labelled rows."""
    import sys
    from types import ModuleType

    parts = ModuleType("test_causal_parts")
    parts.ANNOTATOR, parts.Marks = Numbers(PATTERNS["at its end"]), Marks  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, parts.__name__, parts)
    (tmp_path / "t.py").write_text(PLUGIN)
    for split in ("train", "test"):
        lines = [json.dumps({"text": f"Take {n} mg?", "answer": LABELS[n % 4]}) for n in range(8)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    (tmp_path / "recipe.toml").write_text(
        f'[run]\nname = "own"\n[model]\npath = "{r1core_tiny_model}"\n'
        '[data.files]\ntrain = "train.jsonl"\ntest = "test.jsonl"\n'
    )
    opened = open_bench(Selection(recipe=tmp_path / "recipe.toml", run=tmp_path / "run", files=(tmp_path / "t.py",)))
    prepare(opened, lambda line: None)
    save_adapter(opened, open_the_gate)
    return opened


@torch.no_grad()
def test_an_opened_model_scores_prepared_rows_as_training_sees_them(bench: Workbench) -> None:
    session = Session(bench, Compute("cpu", "fp32", 1, 0.0), adapted=True)
    examples = list(codec.read(bench.run.split("train"), bench.chain.kinds))
    assert any(span.part == 1 for example in examples for span in example.spans)
    tree = session.label_tree(LABELS)
    answers, scores = session.answer_and_score(examples, Decoding(6), tree)
    for example, row, answer in zip(examples, scores, answers, strict=True):
        batch = pack_rows([bench.renderer.encode(example)], bench.chain.kinds, torch.float32)
        with session.layers.using(batch.features):
            logits = logits_at(session.model, batch)
        column = LABELS.index(example.messages[-1].content)
        assert row[column] == pytest.approx(score(tree, column, logits), abs=1e-4)
        (alone,) = session.answer([example], Decoding(6))
        assert alone.completion.tokens == answer.completion.tokens


def test_where_the_layer_is_off_nothing_reads_the_answer(bench: Workbench) -> None:
    session = Session(bench, Compute("cpu", "fp32", 1, 0.0), adapted=True)
    (example,) = [bench.chain.annotate(Example("q", (Message("user", "Take 5?"),), "own"))]
    annotator = bench.chain.steps[0].inner  # type: ignore[union-attr]
    calls = annotator.calls
    with session.as_base():
        session.answer([example], Decoding(5))
    assert annotator.calls == calls
    session.answer([example], Decoding(5))
    assert annotator.calls > calls
