"""How often does the embedded model choose the right operation and operands, so that the answer is exact?

Run: python benchmarks/numeric_choice.py [--on tatqa|prices|both] [--part test] [--seeds 0] [--runs DIR] [--set K=V]
`tatqa`: arithmetic questions of TAT-QA on tables that training never saw. It learns from the questions of the training
tables and from questions that rules make on the same tables (`table_questions`). `prices`: the data set
`finance/price_questions`, whose splits share neither a stock nor a day.

Both are whole `r1core adapt` runs with the layer `numeric/pointer`: the model is shown the question and its table, the
heads choose, the plugin reckons, and the answer is generated under the constraint that it is the result. What is
compared is the generated text: TAT-QA's gold number, to two places in the question's scale, or the number alone where
neither table nor caption states a scale; the exact answer of a question on prices. Questions that none of the eight
operations covers count as wrong. Asked rows hold no program. `--part val` is for choosing settings. Meant for a GPU;
the test is asked once.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from random import Random

import adapting
import table_questions
import tatqa
from r1core_numeric.config import NumericConfig
from r1core_numeric.derivations import read_derivation
from r1core_numeric.execute import Abstained, attempt
from r1core_numeric.formats import rounded
from r1core_numeric.programs import Apply, At, Node, Program, Slot, node_to_json
from r1core_numeric.prompt import TableAnnotator
from r1core_numeric.reader import read
from r1core_numeric.slots import numbers_of_messages
from r1core_numeric.values import Number
from record import machine, write
from table_questions import Table

from r1core.api import JSON, Example, Message

TARGETS = {"tatqa": 0.60, "prices": 0.95}
Row = Mapping[str, JSON]
RECIPE = """
[run]
plugins = ["numeric", "smollm2"]

[model]
attention = "sdpa"

[data]
kind = "text"
max_tokens = 2048
max_rows = 0
max_eval_rows = 0

[data.files]
train = "train.jsonl"
val = "val.jsonl"
test = "test.jsonl"

[adapter]
rank = 32
alpha = 64
first_layer = 0

[plugins.numeric]
table = "prompt"
layer = "numeric/pointer"
results = "answer"

[layers]
"numeric/pointer" = 10.0

[train]
epochs = {epochs}
batch_size = 32
learning_rate = 4e-4
layer_learning_rate = 1e-3
label_smoothing = 0.0
packing = "padded"
micro_batch_tokens = 16384
compile = "off"
checkpoint_every = 100000

[evaluate]
baselines = false
base_model = false
batch_size = 16
max_new_tokens = 32

[report]
demo_prompt = ""
"""


def prompt_numbers(text: str, table: Table) -> tuple[Number, ...]:
    """The numbers of a prompt in the order of its slots."""
    shown: JSON = {"rows": table.rows, "caption": table.caption}
    example = Example(id="one", messages=(Message("user", text),), task="asked", fields={"table": shown})
    return numbers_of_messages(TableAnnotator(NumericConfig(table="prompt"))(example))


def on_cells(node: Node, numbers: Sequence[Number]) -> Node:
    """A program over a table's numbers as one over its cells."""
    if isinstance(node, Slot):
        cell = numbers[node.index].cell
        assert cell is not None
        return At(cell.row, cell.column)
    assert isinstance(node, Apply)
    return Apply(node.op, tuple(on_cells(arg, numbers) for arg in node.args))


def stated(program: Program) -> JSON:
    """The expression, and how it is written where that says something."""
    shown = {"style": "percent"} if program.format.style == "percent" else {}
    return {"expression": node_to_json(program.expression), "format": shown}


def taught(data: Sequence[tatqa.Context], copies: int, seed: int) -> Iterator[Row]:
    """The questions of these tables that one of the eight operations answers, with their programs.

    Each is told `copies` times: as it stands, then in other years and with other digits.
    """
    for context, question in tatqa.questions(data):
        told, text = table_of(context), text_of(question)
        numbers = prompt_numbers(text, told)
        derivation = read_derivation(question["derivation"])
        selection = tatqa.meant(derivation, numbers, Fraction(str(question["answer"])), question["scale"])
        for copy in range(copies if selection is not None else 0):
            assert selection is not None
            random = Random(f"{seed}/{question['uid']}/{copy}")
            again, asks = table_questions.retold(told, text, random) if copy else (told, text)
            done = attempt(selection.program(), prompt_numbers(asks, again))
            if not isinstance(done, Abstained):
                row = row_of(f"{question['uid']}-{copy}", asks, again, done.written.text)
                yield {**row, "program": stated(selection.program())}


def asked(data: Sequence[tatqa.Context]) -> Iterator[Row]:
    """Every question of these tables, with its gold number and without a program."""
    for context, question in tatqa.questions(data):
        gold = str(question["answer"])
        row = row_of(question["uid"], text_of(question), table_of(context), gold)
        yield {**row, "gold": gold, "scale": question["scale"]}


def table_of(context: tatqa.Context) -> Table:
    """A TAT-QA table."""
    return Table(tuple(tuple(row) for row in context["table"]["table"]), tatqa.caption_of(context))


def row_of(name: str, question: str, table: Table, answer: str) -> Row:
    """The columns that every row has."""
    shown: JSON = {"rows": table.rows, "caption": table.caption}
    return {"id": name, "text": question, "answer": answer, "table": shown}


def text_of(question: tatqa.Question) -> str:
    """The question on one line."""
    return " ".join(question["question"].split())


def generated(data: Sequence[tatqa.Context], count: int, seed: int) -> Iterator[Row]:
    """Questions that rules make on variants of these tables."""
    tables = list({c["table"]["uid"]: table_of(c) for c in data}.values())
    labels = sorted({name.partition("\n")[0] for table in tables for name in table.labels().values()})
    made = draw = 0
    while made < count:
        random = Random(f"{seed}/{draw}")
        draw += 1
        table = table_questions.varied(random.choice(tables), random, labels)
        found = table_questions.ask(table, random)
        if found is None:
            continue
        question, selection = found
        done = attempt(selection.program(), table.numbers)
        if isinstance(done, Abstained):
            continue
        program = selection.program()
        on_table = Program(on_cells(program.expression, table.numbers), program.format)
        made += 1
        row = row_of(f"made-{seed}-{draw}", question, table, done.written.text)
        yield {**row, "program": stated(on_table)}


def tatqa_rows(part: str, path: Path, count: int, copies: int, seed: int) -> tuple[dict[str, list[Row]], str]:
    """Rows by file, and what they were made of."""
    data = tatqa.contexts(path)
    splits = {name: [c for c in data if tatqa.split_of(c) == name] for name in ("train", "val", "test")}
    learnt = splits["train"] + (splits["val"] if part == "test" else [])
    real = list(taught(learnt, copies, seed))
    rows = {
        "train": [*real, *generated(learnt, count, seed)],
        "val": list(generated(learnt, 60, -1)),
        "test": list(asked(splits[part])),
    }
    told_once = sum(str(row["id"]).endswith("-0") for row in real)
    told = f"{len(learnt)} training tables with {told_once} questions, and {count} made on them"
    return rows, f"{told}; {len(rows['test'])} questions on {len(splits[part])} other tables"


def price_rows(part: str, seed: int) -> tuple[dict[str, list[Row]], str]:
    """The same of `finance/price_questions`."""
    from r1core_finance.price_questions import PriceQuestions

    def rows(split: str, *, program: bool) -> list[Row]:
        found: list[Row] = []
        for example in PriceQuestions().read(split):
            table = Table(example.fields["table"])
            gold = example.messages[1].content
            last = {"program": example.fields["program"]} if program else {"gold": gold}
            found.append(
                {**row_of(f"{'asked' * (not program)}{example.id}", example.messages[0].content, table, gold), **last}
            )
        return found

    made = {"train": rows("train", program=True), "val": rows("val", program=True), "test": rows(part, program=False)}
    return made, f"{len(made['train'])} training questions; {len(made['test'])} on other stocks and days"


def right(row: Row, text: str) -> bool:
    """Whether a generated answer is exact."""
    numbers = [number for number in read(text) if number.kind in ("quantity", "year")]
    if "scale" not in row:
        return text == row["gold"]
    if len(numbers) != 1 or numbers[0].amount is None:
        return False
    gold, said, scale = Fraction(str(row["gold"])), numbers[0], str(row["scale"])
    if scale == "percent":
        pure = said.unit.name in ("percent", "basis_point")
        return rounded(said.fraction * (100 if pure else 1), 2, "half_up") == gold
    value = said.fraction / Fraction(10) ** tatqa.SCALES[scale]
    unscaled = not states_scale(row)
    return rounded(value, 2, "half_up") == gold or (unscaled and rounded(said.fraction, 2, "half_up") == gold)


def states_scale(row: Row) -> bool:
    """Whether the reader finds a scale for any quantity of the row's table."""
    shown = row["table"]
    assert isinstance(shown, Mapping)
    table = Table(shown["rows"], str(shown["caption"]))
    return any(number.scale for number in prompt_numbers(str(row["text"]), table) if number.kind == "quantity")


def adapt(folder: Path, rows: Mapping[str, Sequence[Row]], epochs: int, seed: int, sets: Sequence[str]) -> list[str]:
    """Adapt and ask, as a user does; the answers to the test rows in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in rows.items():
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in part)
        (folder / f"{name}.jsonl").write_text(f"{text}\n", encoding="utf-8")
    changes = (f"run.seed={seed}", "data.columns.id=id", *sets)
    said = adapting.answers(adapting.adapt(folder, "finance", RECIPE.format(epochs=epochs), changes), "text")
    return [said[str(row["id"])] for row in rows["test"]]


def measured(on: str, chosen: argparse.Namespace) -> None:
    """Adapt once a seed, print the share of exact answers, and write the figure of the test."""
    shares, told, device = [], "", {}
    for seed in map(int, chosen.seeds.split(",")):
        rows, told = (
            tatqa_rows(chosen.part, chosen.tatqa, chosen.made, chosen.copies, seed)
            if on == "tatqa"
            else price_rows(chosen.part, seed)
        )
        folder = chosen.runs / f"{on}-{chosen.part}-seed{seed}"
        answers = adapt(folder, rows, chosen.epochs, seed, chosen.sets)
        found = [right(row, text) for row, text in zip(rows["test"], answers, strict=True)]
        shares.append(sum(found) / len(found))
        print(on, seed, shares[-1], flush=True)
        manifest = json.loads((folder / "runs" / "one" / "manifest.json").read_text("utf-8"))
        device = manifest["stages"]["train"]["device"]
    mean, target = statistics.mean(shares), TARGETS[on]
    if chosen.part == "val":
        return
    where = ", ".join([machine(), *device.get("accelerators", [])])
    figure = f"exact answers, {on} ({told}; seeds {chosen.seeds})"
    row = {"figure": figure, "value": round(mean, 4), "unit": "share", "target": target, "met": mean >= target,
           "peer": shares, "machine": where}  # fmt: skip
    write(f"numeric_choice_{on}", [row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", choices=("tatqa", "prices", "both"), default="both")
    parser.add_argument("--part", choices=("test", "val"), default="test")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--made", type=int, default=6000, help="questions made on training tables")
    parser.add_argument("--copies", type=int, default=4, help="times that each question of a training table is told")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--tatqa", type=Path, default=tatqa.SHARED)
    parser.add_argument("--runs", type=Path, default=Path("runs-choice"))
    parser.add_argument("--set", dest="sets", action="append", default=[])
    chosen = parser.parse_args()
    for on in ("tatqa", "prices") if chosen.on == "both" else (chosen.on,):
        measured(on, chosen)


if __name__ == "__main__":
    main()
