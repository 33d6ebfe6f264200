"""xgrammar: a trie automaton that avoids the names, written as a grammar (case-sensitive), one mask a token."""

from __future__ import annotations

import json
import time

import xgrammar
from masks_common import report, task, timed
from transformers import AutoTokenizer


def main() -> None:
    given = task()
    tokenizer = AutoTokenizer.from_pretrained(given["tokenizer"])
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
    names = sorted({name.lower() for name in given["names"]})
    structure = {"type": "structural_tag", "format": {"type": "any_text", "excludes": names}}
    begin = time.perf_counter()
    compiled = xgrammar.GrammarCompiler(info, max_threads=1).compile_structural_tag(json.dumps(structure))
    seconds = time.perf_counter() - begin
    bitmask = xgrammar.allocate_token_bitmask(1, info.vocab_size)
    times = []
    for tokens in given["tokens"]:
        matcher = xgrammar.GrammarMatcher(compiled)
        for token in tokens:
            times.append(timed(lambda matcher=matcher: matcher.fill_next_token_bitmask(bitmask)))
            if not matcher.accept_token(token):
                break
    report(seconds, times)


if __name__ == "__main__":
    main()
