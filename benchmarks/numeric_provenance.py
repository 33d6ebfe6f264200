"""How many numbers of generated answers come from nowhere, without the constraint and with it?

Run: python benchmarks/numeric_provenance.py [--questions 60] [--tokens 48]
The embedded model, not adapted, answers arithmetic questions of TAT-QA, one a table, with the table in the prompt:
free; held to the numbers of the prompt; held to the result of the gold program as well, first or alone. Numbers are
counted by the plugin's reader, and again by a search for digits that knows nothing of the plugin: a number counts as
found where its significant digits are those of some number in the prompt or in the result, so another scale passes and
nothing else does. Answers that were withheld, or ended before their result stood there, are counted.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numeric_choice
import tatqa
from r1core_numeric.claims import unsupported
from r1core_numeric.config import NumericConfig
from r1core_numeric.constraint import grounds
from record import write

from r1core.api import JSON, Example, Message
from r1core.decode.session import Answer, Session
from r1core.decode.values import Decoding
from r1core.pipeline import compute_of
from r1core.workbench import Selection, open_bench

RECIPE = """
[run]
plugins = ["numeric", "smollm2"]

[data]
kind = "text"

[data.files]
train = "rows.jsonl"

[model]
template = "chat"
processes = 1

[plugins.numeric]
table = "prompt"
results = "{results}"

[report]
demo_prompt = ""
"""
ARMS = (
    ("free", "first", False, False),
    ("held to the numbers of the prompt", "first", True, False),
    ("held to them and to a program's result, which comes first", "first", True, True),
    ("held to a program's result and nothing else", "answer", True, True),
)
"""What is asked, where results stand, whether the constraint holds, and whether a program is given."""
BATCH = 4
_DIGITS = re.compile(r"\d[\d,]*(?:\.\d+)?")


def significant(text: str) -> list[str]:
    """The significant digits of each number in a text: "$1,200.50" gives 12005."""
    return [re.sub(r"[,.]", "", found).lstrip("0").rstrip("0") or "0" for found in _DIGITS.findall(text)]


def asked(count: int, path: Path) -> list[tuple[Example, JSON]]:
    """One question of each table that has one with a program, and the program."""
    found: dict[str, tuple[Example, JSON]] = {}
    for row in numeric_choice.taught(tatqa.contexts(path), 1, 0):
        shown = row["table"]
        name = json.dumps(shown)
        if name not in found and len(found) < count:
            messages = (Message("user", str(row["text"])),)
            found[name] = Example(str(row["id"]), messages, "asked", fields={"table": shown}), row["program"]
    return list(found.values())


def counted(examples: Sequence[Example], answers: Sequence[Answer], program: Sequence[JSON]) -> dict[str, int]:
    """Numbers in the answers, and those without provenance by the reader and by their digits."""
    config = NumericConfig(table="prompt")
    total = {"numbers": 0, "reader": 0, "digits": 0, "stopped": 0}
    for example, answer, one in zip(examples, answers, program, strict=True):
        held = grounds(example, config, one)
        known = significant(" ".join([example.messages[0].content, *(r.written.text for r in held.results)]))
        said = significant(answer.text)
        total["numbers"] += len(said)
        total["reader"] += len(unsupported(answer.text, held.allowed, config.reading))
        total["digits"] += sum(digits not in known for digits in said)
        total["stopped"] += answer.completion.withheld or answer.completion.finish in ("dead_end", "unmet")
    return total


def answered(
    examples: Sequence[Example], tokens: int, results: str, *, ruled: bool
) -> tuple[list[Example], list[Answer]]:
    """The prompts as the model reads them, and what it answers, by a run whose recipe names the plugin."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "my.toml").write_text(RECIPE.format(results=results), encoding="utf-8")
        (home / "rows.jsonl").write_text('{"text": "?", "answer": "!"}\n', encoding="utf-8")
        bench = open_bench(Selection("finance", home / "my.toml", run=home / "run"))
        session = Session(bench, compute_of(bench), adapted=False)
        shown = [bench.chain.annotate(example) for example in examples]
        answers: list[Answer] = []
        for start in range(0, len(shown), BATCH):
            part = shown[start : start + BATCH]
            held = [session.constraint(example) if ruled else None for example in part]
            prefix = "" if results == "answer" else "The answer is"
            answers += session.answer(part, Decoding(tokens, seed=0), held, prefix=prefix)
    return shown, answers


def measured(
    pairs: Sequence[tuple[Example, JSON]], tokens: int, name: str, results: str, ruled: bool, programmed: bool
) -> dict[str, object]:
    """The row of one arm."""
    programs = [program if programmed else None for _, program in pairs]
    examples = [
        replace(example, fields={**example.fields, "program": program}) if programmed else example
        for (example, _), program in zip(pairs, programs, strict=True)
    ]
    found = counted(*answered(examples, tokens, results, ruled=ruled), programs)
    worst = max(found["reader"], found["digits"])
    told = f"{len(examples)} answers, {found['numbers']} numbers, {found['stopped']} answers without what is due"
    return {
        "figure": f"numbers without provenance, {name} ({told})",
        "value": worst,
        "unit": "",
        "target": 0 if ruled else None,
        "met": worst == 0 if ruled else None,
        "peer": {"by the reader": found["reader"], "by digits": found["digits"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--tatqa", type=Path, default=tatqa.SHARED)
    chosen = parser.parse_args()
    pairs = asked(chosen.questions, chosen.tatqa)
    write("numeric_provenance", [measured(pairs, chosen.tokens, *arm) for arm in ARMS])


if __name__ == "__main__":
    main()
