"""A model opened for inference: base weights, adapter and extra layers of one run, answering examples in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from r1core.api import ConstraintState, DecodeConstraint, Example, Reason, SpanKind, UserError
from r1core.data.answers import AnswerReader, Growing
from r1core.data.images import IMAGE
from r1core.data.thinking import CLOSE, OPEN, no_room
from r1core.data.tokens import prompt_of, without_task_token
from r1core.decode.constraints import is_allowed
from r1core.decode.ending import Stops
from r1core.decode.generate import Completion, Decoding, LabelTree, decode
from r1core.decode.hold import Hold, LabelSet, hold
from r1core.decode.prefill import Prompt, prefill
from r1core.decode.reasoning import reasoned
from r1core.decode.vocabulary import Vocabulary
from r1core.model.adapted import LanguageModel
from r1core.model.adapter import load_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.load import load_model
from r1core.model.own_files import LAYERS
from r1core.model.probe import Compute
from r1core.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Answer:
    """One generated answer: its text, how it came about, and what the recheck found: `(constraint, finding)`.

    `text` : without the given start and without reasoning; "" where it is withheld.
    `reasoning` : what stood in the `<think>` block before it, held to nothing; "" where that is withheld.
    `against` : why the reasoning is withheld: rules that it breaks, or constraints that cannot tell.
    """

    text: str
    completion: Completion
    recheck: tuple[tuple[str, Reason], ...] = ()
    reasoning: str = ""
    against: tuple[str, ...] = ()


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
        return Vocabulary.from_tokenizer(
            self.bench.tokenizer, size=self._width, eos_ids=self._generation_eos, spoken=self._marks
        )

    @cached_property
    def _marks(self) -> tuple[str, ...]:
        """Marks of reasoning that are tokens: text, whatever the tokenizer says of them."""
        known = self.bench.tokenizer.backend_tokenizer.token_to_id
        return tuple(mark for mark in (OPEN, CLOSE) if self.renderer.blocks and known(mark) is not None)

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

    def prompt(self, example: Example, *, reasons: bool = False) -> Prompt:
        """Tokens and aligned spans of an example's prompt; `reasons` : reasoning is to come behind it."""
        prompt = self.renderer.encode_prompt(prompt_of(example), reasons=reasons)
        return prompt if self._routed else without_task_token(*prompt)

    def constraint(
        self,
        example: Example,
        choices: Sequence[str] = (),
        *,
        rules: bool = True,
        further: Sequence[DecodeConstraint] = (),
    ) -> Hold | None:
        """What one answer is held to; None where it is free.

        Parameters
        ----------
        choices : the label set that it has to stay in.
        rules : whether the run's own constraints hold.
        further : constraints besides.
        """
        own = [LabelSet(tuple(choices))] if choices else []
        all_of_them = [*(self.bench.constraints.constraints if rules else ()), *own, *further]
        return hold(prompt_of(example), all_of_them, self.vocabulary) if all_of_them else None

    def answer(
        self,
        examples: Sequence[Example],
        decoding: Decoding,
        held: Sequence[Hold | None] = (),
        prefix: str = "",
    ) -> list[Answer]:
        """Generate one answer an example, all in one packed batch; each is rechecked by what it is held to.

        Constraints start when the prompt has been read, so that they are told what the layers made of it.

        Parameters
        ----------
        held : what each answer is held to, as `constraint` gives it.
        prefix : the given start of each answer, which then comes without reasoning.
        """
        given = self.renderer.start_ids(prefix) if prefix else ()
        reasons = bool(decoding.reasoning) and not given
        answers, prompts = self._growing(examples), []
        self._refuse_reasoning(decoding)
        for row, example in enumerate(examples):
            ids, slots = self.prompt(example, reasons=reasons)
            on_given = answers[row].take(given, len(ids)) if answers else ()
            prompts.append((ids + given, slots + on_given))
        each = held or [None] * len(examples)
        read = prefill(
            self.model, self.layers, self._kinds, prompts, answers=answers, outputs=any(each),
            tasks=self._tasks(examples), kv_bits=decoding.kv_bits,
        )  # fmt: skip
        states = [_started(one, said, given, reasons) for one, said in zip(each, read.outputs, strict=True)]
        if reasons and self.renderer.blocks is not None:
            inside, words = self.renderer.blocks.prompt == "open", self.vocabulary.inside
            states = [reasoned(state, words, decoding.reasoning, inside=inside) for state in states]
        stops = Stops(decoding.stop, self.vocabulary, at_start=not given) if decoding.stop else None
        done = decode(self.model, read, decoding, self._eos, states, stops)
        return [self._checked(c, one, given, prefix, reasons) for c, one in zip(done, each, strict=True)]

    def _refuse_reasoning(self, decoding: Decoding) -> None:
        """Raise a `UserError` where reasoning is asked for and cannot be."""
        refusal = no_room(self.renderer.blocks, "reasoning_tokens", decoding.reasoning)
        if refusal is None and decoding.reasoning and self.layers.reads(self.bench.chain.causal):
            said = f"reasoning_tokens = {decoding.reasoning} beside a layer that reads inside answers"
            refusal = UserError(said, fix="set reasoning_tokens = 0")
        if refusal is not None:
            raise refusal

    def _checked(
        self, done: Completion, held: Hold | None, given: tuple[int, ...], prefix: str, reasons: bool
    ) -> Answer:
        """The answer, once what it is held to has seen its text; withheld where anything is found."""
        text = "" if done.withheld else self._behind(given, done)
        reasoning, text = ("", text) if given else self._apart(done, text, reasons)
        finished = done.finish not in ("unmet", "dead_end")  # what these lack is told already
        found = [] if held is None or done.withheld else held.recheck(prefix + text, finished=finished)
        if found:
            rules = ", ".join(dict.fromkeys(reason.rule for _, reason in found))
            done.failure = f"the recheck of the answer found something against: {rules}; it is withheld"
            done.finish, done.withheld = "recheck", True
        if done.withheld:
            return Answer("", done, tuple(found))
        against = tuple(held.against(reasoning)) if held is not None and reasoning else ()
        return Answer(text, done, tuple(found), "" if against else reasoning, against)

    def _apart(self, done: Completion, text: str, reasons: bool) -> tuple[str, str]:
        """Reasoning and answer; without an answer, where the block was never closed, the completion has failed."""
        if self.renderer.blocks is None:
            return "", text
        found = self.renderer.blocks.generated(text, reasons=reasons)
        if found.answer is None and not done.failure:
            done.finish, done.failure = "unmet", "the reasoning was never closed, so there is no answer"
        return found.reasoning, found.answer or ""

    def _behind(self, given: tuple[int, ...], done: Completion) -> str:
        """The text that an answer's tokens add to its given start: a first token may read otherwise behind another."""
        if done.tail:
            vocabulary, tokens = self.vocabulary, (*given, *done.tokens)
            start = len(vocabulary.text_bytes(given))
            return (vocabulary.text_bytes(tokens) + done.tail)[start:].decode("utf-8", "replace")
        whole, head = self.text((*given, *done.tokens)), self.text(given) if given else ""
        return whole[len(head) :] if whole.startswith(head) else self.text(done.tokens)

    def answer_and_score(
        self, examples: Sequence[Example], decoding: Decoding, tree: LabelTree
    ) -> tuple[list[Answer], np.ndarray]:
        """Free-running answers and each label's log-probability `(N, C)`, from one reading of the prompts."""
        prompts = [self.prompt(e) for e in examples]
        growing, tasks = self._growing(examples), self._tasks(examples)
        read = prefill(
            self.model, self.layers, self._kinds, prompts, tree.branches, growing, tasks=tasks, kv_bits=decoding.kv_bits
        )
        scores = tree.scores(read.logits, read.extra)
        if decoding.reasoning:  # which labels are scored without
            return self.answer(examples, decoding), scores
        done = decode(self.model, read, decoding, self._eos)
        return [self._checked(c, None, (), "", False) for c in done], scores

    def _growing(self, examples: Sequence[Example]) -> list[Growing]:
        """An empty answer an example, where a layer that is on reads spans of causal kinds or images; else none."""
        chain = self.bench.chain
        spans, images = self.layers.reads(chain.causal), self.layers.reads({IMAGE.name})
        if not spans and not (images and any(example.images for example in examples)):
            return []
        reader = AnswerReader(self.renderer, chain.in_answer if spans else None)
        return [reader.begin(example) for example in examples]

    def label_tree(self, labels: Sequence[str]) -> LabelTree:
        """The label set as this tokenizer's token paths, each closed by end of sequence."""
        return LabelTree(labels, [self.renderer.response_ids(label) for label in labels])

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text, special tokens left out."""
        decode, kept = self.bench.tokenizer.decode, [token for token in tokens if token not in self._silent]
        return str(decode(kept, skip_special_tokens=not self._silent, clean_up_tokenization_spaces=False))

    @cached_property
    def _silent(self) -> frozenset[int]:
        """Special tokens without the marks of reasoning, where the tokenizer counts these among them; else none."""
        tokenizer = self.bench.tokenizer
        marks = set(map(tokenizer.backend_tokenizer.token_to_id, self._marks))
        special = frozenset(tokenizer.all_special_ids)
        special |= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        return special - marks if special & marks else frozenset()

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
    held: Hold | None, outputs: Mapping[str, object], given: Sequence[int], reasons: bool
) -> ConstraintState | None:
    """A row's constraints behind the tokens that stand already.

    Raises
    ------
    UserError : when these tokens are refused themselves.
    """
    state = held.start(outputs, inside=reasons) if held is not None else None
    for token in given:
        if state is None:
            return None
        if not is_allowed(state.mask(), token):
            rules = ", ".join(dict.fromkeys(reason.rule for reason in state.explain(token)))
            raise UserError(
                f"the given start of the answer is refused by {rules or 'a constraint'}",
                fix="change it (report.demo_prefix for the demonstration)",
            )
        state = state.advance(token)
    return state
