"""A model opened for inference: base weights, adapter and extra layers of one run, answering examples in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel

from r1core.api import ConstraintState, Example, SpanKind
from r1core.data.tokens import prompt_of
from r1core.decode.choices import ChoiceAutomaton
from r1core.decode.constraints import Request, intersect
from r1core.decode.generate import Completion, Decoding, LabelTree, Prompt, decode, prefill
from r1core.decode.vocabulary import Vocabulary
from r1core.model.adapter import load_lora
from r1core.model.layers import WEIGHTS, ExtraLayers
from r1core.model.load import load_model
from r1core.model.probe import Compute
from r1core.workbench import Workbench


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
    """

    def __init__(self, bench: Workbench, compute: Compute, *, adapted: bool) -> None:
        torch.set_num_threads(compute.threads)
        self.bench = bench
        recipe = bench.recipe
        base = load_model(bench.base, precision=compute.precision, attention=recipe.model.attention)
        base.to(torch.device(compute.device))  # type: ignore[arg-type]  # transformers' stub takes a model here
        self.layers = ExtraLayers(base, bench.layer_specs(base.config) if adapted else [], recipe.run.seed)
        self.model: PreTrainedModel | PeftModel = base
        if adapted:
            self.model = load_lora(base, bench.run.adapter)
            weights = bench.run.adapter / WEIGHTS
            with torch.no_grad():
                self.layers.load(load_file(weights) if weights.exists() else {})
        self.model.eval()
        self._width = int(base.get_output_embeddings().weight.shape[0])
        self.renderer = bench.renderer

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Bytes of every token, for constraints."""
        return Vocabulary.from_tokenizer(self.bench.tokenizer, size=self._width)

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Inside, the adapter and the extra layers are off: the base model answers."""
        off = self.model.disable_adapter() if isinstance(self.model, PeftModel) else nullcontext()
        self.layers.enabled = False
        try:
            with off:
                yield
        finally:
            self.layers.enabled = True

    def prompt(self, example: Example) -> Prompt:
        """Tokens and aligned spans of an example's prompt."""
        return self.renderer.encode_prompt(prompt_of(example))

    def constraint(
        self, example: Example, choices: Sequence[str] = (), *, rules: bool = True
    ) -> ConstraintState | None:
        """The run's constraints on one answer, and the label set where one is given; None where nothing applies."""
        request = Request(prompt_of(example), self.vocabulary)
        states = self.bench.constraints.states(request) if rules else []
        if choices:
            states.append(("choices", request.lift(ChoiceAutomaton(list(choices)))))
        return intersect(states, self._width) if states else None

    def answer(
        self,
        examples: Sequence[Example],
        decoding: Decoding,
        states: Sequence[ConstraintState | None] = (),
        prefix: str = "",
    ) -> list[Answer]:
        """Generate one answer an example, all in one packed batch; `prefix` is the given start of each answer."""
        start_ids = tuple(self.bench.tokenizer(prefix, add_special_tokens=False)["input_ids"]) if prefix else ()
        prompts = [(ids + start_ids, slots) for ids, slots in map(self.prompt, examples)]
        states = [_advanced(state, start_ids) for state in states]
        start = prefill(self.model, self.layers, self._kinds, prompts)
        done = decode(self.model, start, decoding, self._eos, states)
        return [Answer(self.text(c.tokens), c) for c in done]

    def answer_and_score(
        self, examples: Sequence[Example], decoding: Decoding, tree: LabelTree
    ) -> tuple[list[Answer], np.ndarray]:
        """Free-running answers and each label's log-probability `(N, C)`, from one reading of the prompts."""
        prompts = [self.prompt(e) for e in examples]
        start = prefill(self.model, self.layers, self._kinds, prompts, tree.branches)
        scores = tree.scores(start.logits, start.extra)
        done = decode(self.model, start, decoding, self._eos)
        return [Answer(self.text(c.tokens), c) for c in done], scores

    def label_tree(self, labels: Sequence[str]) -> LabelTree:
        """The label set as this tokenizer's token paths, each closed by end of sequence."""
        return LabelTree(labels, [self.renderer.response_ids(label) for label in labels])

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as text, special tokens left out."""
        return str(self.bench.tokenizer.decode(list(tokens), skip_special_tokens=True))

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


def _advanced(state: ConstraintState | None, tokens: Sequence[int]) -> ConstraintState | None:
    """The state behind tokens that stand already."""
    for token in tokens:
        state = state.advance(token) if state is not None else None
    return state
