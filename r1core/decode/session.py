"""A model opened for inference: base weights, adapter and extra layers of one run, answering examples in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from r1core.api import ConstraintState, Example, SpanKind, UserError
from r1core.data.answers import AnswerReader, Growing
from r1core.data.tokens import prompt_of, without_task_token
from r1core.decode.choices import ChoiceAutomaton
from r1core.decode.constraints import Request, allowed_bool, intersect
from r1core.decode.generate import Completion, Decoding, LabelTree, decode
from r1core.decode.prefill import Prompt, prefill
from r1core.decode.vocabulary import Vocabulary
from r1core.model.adapted import LanguageModel
from r1core.model.adapter import load_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.load import load_model
from r1core.model.own_files import LAYERS
from r1core.model.probe import Compute
from r1core.workbench import Workbench

Start = Callable[[Mapping[str, object]], ConstraintState | None]
"""Starts one answer's constraints from what the layers said of its prompt, by layer name; None where none applies."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer: its text and how it came about."""

    text: str
    completion: Completion


class Session:
    """Answers prompts with the base model or with the adapted one.

    Parameters
    ----------
    adapted : load the run's adapter and layers (they can be switched off again with `as_base`).
    adapter : another directory to load them from.
    """

    def __init__(self, bench: Workbench, compute: Compute, *, adapted: bool, adapter: Path | None = None) -> None:
        torch.set_num_threads(compute.threads)
        self.bench, self.compute = bench, compute
        recipe = bench.recipe
        base = load_model(bench.base, precision=compute.precision, attention=recipe.model.attention)
        base.to(torch.device(compute.device))  # type: ignore[arg-type]  # transformers' stub takes a model here
        directory = adapter or bench.run.adapter
        self.adapted = load_adapter(base, directory) if adapted else None  # first: it may replace modules
        self.layers = ExtraLayers(base, bench.layer_specs(base.config) if adapted else [], recipe.run.seed)
        self.model: LanguageModel = base if self.adapted is None else self.adapted.model
        if adapted:
            weights = directory / LAYERS
            with torch.no_grad():
                self.layers.load(load_file(weights) if weights.exists() else {})
        self.model.eval()
        self.parameters = base.num_parameters()
        self._width = int(base.get_output_embeddings().weight.shape[0])
        self.renderer = bench.renderer

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Bytes of every token, for constraints."""
        return Vocabulary.from_tokenizer(self.bench.tokenizer, size=self._width)

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Inside, the adapter and the extra layers are off: the base model answers."""
        off = nullcontext() if self.adapted is None else self.adapted.off()
        self.layers.enabled = False
        try:
            with off:
                yield
        finally:
            self.layers.enabled = True

    def prompt(self, example: Example) -> Prompt:
        """Tokens and aligned spans of an example's prompt."""
        prompt = self.renderer.encode_prompt(prompt_of(example))
        return prompt if self._routed else without_task_token(*prompt)

    def constraint(self, example: Example, choices: Sequence[str] = (), *, rules: bool = True) -> Start | None:
        """The run's constraints on one answer, and the label set where one is given; None where there are none.

        They start when the prompt has been read, so that they are told what the layers made of it.
        """
        if not choices and not (rules and self.bench.constraints.constraints):
            return None

        def start(outputs: Mapping[str, object]) -> ConstraintState | None:
            request = Request(prompt_of(example), self.vocabulary, outputs)
            states = self.bench.constraints.states(request) if rules else []
            if choices:
                states.append(("choices", request.lift(ChoiceAutomaton(list(choices)))))
            return intersect(states, self._width) if states else None

        return start

    def answer(
        self,
        examples: Sequence[Example],
        decoding: Decoding,
        starts: Sequence[Start | None] = (),
        prefix: str = "",
    ) -> list[Answer]:
        """Generate one answer an example, all in one packed batch.

        Parameters
        ----------
        starts : of each example's constraints, as `constraint` gives them.
        prefix : the given start of each answer.
        """
        given = self.renderer.start_ids(prefix) if prefix else ()
        answers, prompts = self._growing(examples), []
        for row, (ids, slots) in enumerate(map(self.prompt, examples)):
            on_given = answers[row].take(given, len(ids)) if answers else ()
            prompts.append((ids + given, slots + on_given))
        waiting = starts or [None] * len(examples)
        read = prefill(
            self.model, self.layers, self._kinds, prompts, answers=answers, outputs=any(waiting),
            tasks=self._tasks(examples),
        )  # fmt: skip
        states = [_started(start, said, given, self._width) for start, said in zip(waiting, read.outputs, strict=True)]
        done = decode(self.model, read, decoding, self._eos, states)
        return [Answer(self.text(c.tokens), c) for c in done]

    def answer_and_score(
        self, examples: Sequence[Example], decoding: Decoding, tree: LabelTree
    ) -> tuple[list[Answer], np.ndarray]:
        """Free-running answers and each label's log-probability `(N, C)`, from one reading of the prompts."""
        prompts = [self.prompt(e) for e in examples]
        growing, tasks = self._growing(examples), self._tasks(examples)
        read = prefill(self.model, self.layers, self._kinds, prompts, tree.branches, growing, tasks=tasks)
        scores = tree.scores(read.logits, read.extra)
        done = decode(self.model, read, decoding, self._eos)
        return [Answer(self.text(c.tokens), c) for c in done], scores

    def _growing(self, examples: Sequence[Example]) -> list[Growing]:
        """An empty answer an example, where a layer that is on reads spans of causal kinds; else none at all."""
        chain = self.bench.chain
        if not self.layers.reads(chain.causal):
            return []
        reader = AnswerReader(self.renderer, chain.in_answer)
        return [reader.begin(example) for example in examples]

    def label_tree(self, labels: Sequence[str]) -> LabelTree:
        """The label set as this tokenizer's token paths, each closed by end of sequence."""
        return LabelTree(labels, [self.renderer.response_ids(label) for label in labels])

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text, special tokens left out."""
        return str(self.bench.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @property
    def _routed(self) -> bool:
        """Whether the model that answers is a pool of task adapters."""
        return self.adapted is not None and self.adapted.routed

    def _tasks(self, examples: Sequence[Example]) -> list[str]:
        return [example.task for example in examples] if self._routed else []

    @property
    def _kinds(self) -> Mapping[str, SpanKind]:
        return self.bench.chain.kinds

    @property
    def _eos(self) -> frozenset[int]:
        return frozenset({int(self.bench.tokenizer.eos_token_id)}) | self._generation_eos

    @cached_property
    def _generation_eos(self) -> frozenset[int]:
        config = getattr(self.model, "generation_config", None)
        ids = getattr(config, "eos_token_id", None)
        return frozenset([ids] if isinstance(ids, int) else ids or [])


def _started(
    start: Start | None, outputs: Mapping[str, object], given: Sequence[int], width: int
) -> ConstraintState | None:
    """A row's constraints behind the tokens that stand already.

    Raises
    ------
    UserError : when these tokens are refused themselves.
    """
    state = start(outputs) if start is not None else None
    for token in given:
        if state is None:
            return None
        if not allowed_bool(state.mask(), width)[token]:
            rules = ", ".join(dict.fromkeys(reason.rule for reason in state.explain(token)))
            raise UserError(
                f"the given start of the answer is refused by {rules or 'a constraint'}",
                fix="change it (report.demo_prefix for the demonstration)",
            )
        state = state.advance(token)
    return state
