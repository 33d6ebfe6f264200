"""The share of generation time that constraints take, on the embedded model, at batch 1 and 32.

The same prompts are answered with the constraint, and the time inside its states (mask, advance) and inside applying is
counted by wrapping the calls; the share is of the whole decoding time. The first answers warm the masks, as a server
that has run for a while has them; the first pass is reported beside.

Run: python benchmarks/constraint_share.py [--forms 500] [--tokens 48]
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from typing import Any

import record
import rule_corpus
import torch
from r1core_smollm2.plugin import SmolLM2Source
from transformers import AutoModelForCausalLM

from r1core.decode import search
from r1core.decode.constraints import Composite
from r1core.decode.generate import decode
from r1core.decode.prefill import prefill
from r1core.decode.values import Decoding
from r1core.decode.vocabulary import Vocabulary
from r1core.model.layers import ExtraLayers

ROUNDS = 3


class Clock:
    """Adds up the time inside wrapped functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time counted."""

        def timed(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - begin

        return timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forms", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=48)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer: Any = rule_corpus.tokenizer()
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    folder = SmolLM2Source().materialise("smollm2-135m-instruct")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    layers = ExtraLayers(model, [], seed=0)
    made = rule_corpus.automaton(rule_corpus.forms(arguments.forms))
    clock = Clock()
    for name in ("mask", "advance", "allows"):
        setattr(Composite, name, clock.wrap(getattr(Composite, name)))
    search.forbid = clock.wrap(search.forbid)
    texts = list(itertools.islice(rule_corpus.clinical(), 0, 32 * 50, 50))
    rows: list[dict[str, object]] = []
    for batch in (1, 32):
        shares = []
        for _ in range(ROUNDS):
            prompts = [(tuple(tokenizer.encode(f"Explain: {text}\n")), ()) for text in texts[:batch]]
            start = prefill(model, layers, {}, prompts)
            states = [rule_corpus.start(made, vocabulary, text) for text in texts[:batch]]
            clock.seconds, begin = 0.0, time.perf_counter()
            decode(model, start, Decoding(arguments.tokens), vocabulary.eos_ids, states)
            whole = time.perf_counter() - begin
            shares.append(clock.seconds / whole)
        for figure, value, target in (("first answers", shares[0], 0.02), ("warm", min(shares[1:]), 0.02)):
            met = None if target is None else value <= target
            of = f"share of decoding time in constraints, batch {batch}, {figure}"
            share = {"figure": of, "value": round(value, 4), "unit": "fraction", "target": target}
            rows.append({**share, "met": met, "peer": None})
    record.write("constraint_share", rows)


if __name__ == "__main__":
    main()
