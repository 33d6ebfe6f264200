"""llguidance: the complement of "any text that holds a name" as a grammar, one mask a token."""

from __future__ import annotations

import re
import time

import llguidance
import llguidance.hf
from masks_common import report, task, timed
from transformers import AutoTokenizer


def main() -> None:
    given = task()
    tokenizer = AutoTokenizer.from_pretrained(given["tokenizer"])
    wrapped = llguidance.hf.from_tokenizer(tokenizer)
    names = "|".join(re.escape(name.lower()) for name in given["names"])
    grammar = f"start: TEXT\nTEXT: /(?s:.*)/ & ~/(?s:.*)(?i:{names})(?s:.*)/"
    begin = time.perf_counter()
    limits = llguidance.LLParserLimits(initial_lexer_fuel=100_000_000, step_lexer_fuel=100_000_000)
    matcher = llguidance.LLMatcher(wrapped, grammar, limits=limits)
    if matcher.is_error():
        raise SystemExit(matcher.get_error())
    matcher.compute_bitmask()
    compiled = time.perf_counter() - begin
    begun = matcher
    times = []
    for tokens in given["tokens"]:
        matcher = begun.deep_copy()
        for token in tokens:
            times.append(timed(matcher.compute_bitmask))
            if not matcher.consume_token(token):  # the sentence holds a name
                break
    report(compiled, times)


if __name__ == "__main__":
    main()
