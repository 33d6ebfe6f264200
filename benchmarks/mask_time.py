"""What a constraint costs a token: masks, their intersection, applying them, compiling; peers beside in the same run.

Along ordinary clinical sentences, with the embedded model's tokenizer. Warm: the state was met before. Peers, where
they are installed (`--peers-python`, see benchmarks/peers/requirements-masks.txt): llguidance with the complement as a
regular expression, transformers' bad-words processor, xgrammar; each by its own file in `benchmarks/peers`.

Run: python benchmarks/mask_time.py [--forms 500 5000] [--peers-python PYTHON]
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import record
import rule_corpus
import torch

from r1core.decode.search import forbid
from r1core.decode.vocabulary import Vocabulary

SENTENCES = 150
PEERS = ("masks_llguidance.py", "masks_transformers.py", "masks_xgrammar.py")


def along(start: rule_corpus.Composite, encoded: Sequence[Sequence[int]]) -> dict[str, list[float]]:
    """Seconds of each mask (`cold`, `warm`) and each advance (`first`, `again`) of two passes over the texts."""
    times: dict[str, list[float]] = {"cold": [], "warm": [], "first": [], "again": []}
    for mask_into, step_into in (("cold", "first"), ("warm", "again")):
        for tokens in encoded:
            state = start
            for token in tokens:
                begin = time.perf_counter()
                state.mask()
                middle = time.perf_counter()
                try:
                    state = state.advance(token)
                except ValueError:
                    break
                times[step_into].append(time.perf_counter() - middle)
                times[mask_into].append(middle - begin)
    return times


def applying(mask_ids: int, width: int, *, dense: bool = False) -> list[float]:
    """Seconds of striking out ids of one row of logits."""
    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(width, mask_ids, replace=False)).astype(np.int64)  # as a composed mask has them
    allowed = np.packbits(~np.isin(np.arange(width), ids), bitorder="little")
    mask = rule_corpus.api.TokenMask(allowed=allowed) if dense else rule_corpus.api.TokenMask(banned=ids)
    scores, times = torch.zeros(width), []
    for _ in range(2_000):
        begin = time.perf_counter()
        forbid(scores, mask)
        times.append(time.perf_counter() - begin)
    return times


def row(figure: str, seconds: float, target: float | None = None, unit: str = "µs") -> dict[str, object]:
    value = round(seconds * (1e6 if unit == "µs" else 1), 3)
    return {"figure": figure, "value": value, "unit": unit, "target": target,
            "met": None if target is None else value <= target, "peer": None}  # fmt: skip


def ours(count: int, encoded: Sequence[Sequence[int]], vocabulary: Vocabulary) -> list[dict[str, object]]:
    names = rule_corpus.forms(count)
    compiling = []
    for _ in range(3):
        begin = time.perf_counter()
        made = rule_corpus.automaton(names)
        compiling.append(time.perf_counter() - begin)
    times = {name: np.array(found) for name, found in along(rule_corpus.start(made, vocabulary), encoded).items()}
    both = times["warm"] + times["again"]
    of = f"{len(names)} forms"
    return [
        row(f"compile, {of}, median of 3", float(np.median(compiling)), 0.5 if count <= 500 else None, "s"),
        row(f"mask through the intersection, warm, p50, {of}", float(np.median(times["warm"])), 5.0),
        row(f"mask through the intersection, warm, p99, {of}", float(np.quantile(times["warm"], 0.99)), 50.0),
        row(f"mask and advance, warm, p50, {of}", float(np.median(both))),
        row(f"mask and advance, warm, p99, {of}", float(np.quantile(both, 0.99))),
        row(f"mask, first pass over {len(times['cold'])} tokens, mean, {of}", float(times["cold"].mean())),
        row(f"mask, first pass, p99, {of}", float(np.quantile(times["cold"], 0.99))),
    ]


def peers(python: str, names: Sequence[str], encoded: Sequence[Sequence[int]]) -> list[dict[str, object]]:
    """What each peer's file prints: a list of `{figure, value, unit}`."""
    from r1core_smollm2.plugin import SmolLM2Source

    found: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder) / "task.json"
        tokenizer = str(SmolLM2Source().materialise("smollm2-135m-instruct"))
        task.write_text(json.dumps({"names": list(names), "tokens": encoded[:60], "tokenizer": tokenizer}))
        for file in PEERS:
            script = Path(__file__).parent / "peers" / file
            done = subprocess.run([python, str(script), str(task)], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{file}: {done.stderr.strip().splitlines()[-1:]}")
                continue
            for one in json.loads(done.stdout.splitlines()[-1]):
                peer = file.removeprefix("masks_")[:-3]
                found.append({"target": None, "met": None, "peer": peer, **one, "figure": f"{peer}: {one['figure']}"})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forms", type=int, nargs="+", default=[500, 5_000])
    parser.add_argument("--peers-python")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = rule_corpus.tokenizer()
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    texts = itertools.islice(rule_corpus.clinical(), 0, SENTENCES * 20, 20)
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in texts]  # type: ignore[attr-defined]
    table = [one for count in arguments.forms for one in ours(count, encoded, vocabulary)]
    for ids in (100, 1_000):
        table.append(row(f"applying {ids} sparse ids, p50", float(np.median(applying(ids, vocabulary.size))), 5.0))
    dense = float(np.median(applying(25_000, vocabulary.size, dense=True)))
    table.append(row("applying a packed mask, p50 (dense)", dense))
    if arguments.peers_python:
        table += peers(arguments.peers_python, rule_corpus.forms(500), encoded)
    record.write("mask_time", table)


if __name__ == "__main__":
    main()
