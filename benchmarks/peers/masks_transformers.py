"""transformers' bad-words processor: a few tokenisations of each name, one call a token."""

from __future__ import annotations

import time

import torch
from masks_common import report, task, timed
from transformers import AutoTokenizer, NoBadWordsLogitsProcessor


def main() -> None:
    torch.set_num_threads(1)
    given = task()
    tokenizer = AutoTokenizer.from_pretrained(given["tokenizer"])
    forms = {form for name in given["names"] for form in (name, f" {name}", name.lower(), f" {name.lower()}")}
    bad = [tokenizer.encode(form, add_special_tokens=False) for form in sorted(forms)]
    begin = time.perf_counter()
    processor = NoBadWordsLogitsProcessor(bad, eos_token_id=tokenizer.eos_token_id)
    scores = torch.zeros(1, len(tokenizer))
    processor(torch.tensor([[0, 1]]), scores)
    compiled = time.perf_counter() - begin
    times = []
    for tokens in given["tokens"][:20]:
        for end in range(1, len(tokens)):
            ids = torch.tensor([tokens[:end]])
            times.append(timed(lambda ids=ids: processor(ids, scores)))
    report(compiled, times)


if __name__ == "__main__":
    main()
