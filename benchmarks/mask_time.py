"""How long one token's mask takes: warm (the automaton state was met before) and cold, along real English text."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path

import record
import rule_corpus

from r1core.decode.constraints import intersect
from r1core.decode.vocabulary import Vocabulary

TOKENS = 20_000


def main() -> None:
    tokenizer = rule_corpus.tokenizer()
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        start = rule_corpus.start([rule_corpus.rule_file(Path(folder) / "rules.yaml")], vocabulary)
    texts = itertools.islice(rule_corpus.benign(), 400)
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]  # type: ignore[attr-defined]
    cold: list[float] = []
    warm: list[float] = []
    composed: list[float] = []
    steps: list[float] = []
    seen: set[object] = set()
    for tokens in encoded:
        plain, together = start, intersect([("clinical_rules/forbid", start)], vocabulary.size)
        for token in tokens:
            into = warm if plain.key in seen else cold
            seen.add(plain.key)
            begin = time.perf_counter()
            mask = plain.mask()
            into.append(time.perf_counter() - begin)
            together.mask()
            begin = time.perf_counter()
            together.mask()
            composed.append(time.perf_counter() - begin)
            if not rule_corpus.allows(mask, token):
                break
            begin = time.perf_counter()
            plain = plain.advance(token)
            steps.append(time.perf_counter() - begin)
            together = together.advance(token)
        if len(steps) >= TOKENS:
            break
    rows = [
        (f"mask time, warm, median of {len(warm)}", warm, 10.0),
        ("mask time, warm, through the intersection, median", composed, 10.0),
        (f"mask time, cold, median of {len(cold)}", cold, None),
        ("advance by one token, median", steps, None),
    ]
    table = []
    for figure, times, target in rows:
        value = round(statistics.median(times) * 1e6, 2)
        met = None if target is None else value <= target
        table.append({"figure": figure, "value": value, "unit": "µs", "target": target, "met": met, "peer": None})
    record.write("mask_time", table)


if __name__ == "__main__":
    main()
