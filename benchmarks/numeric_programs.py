"""Are programs executed exactly, and do they reproduce the gold derivations of TAT-QA?

TAT-QA (Zhu and others, ACL 2021), development set: each gold derivation of an arithmetic question is read into a
program, run, and written as the data set writes answers: two decimals, half up, in the question's scale. A ratio in a
`percent` question is shown times 100, a sum of percentages as it stands: the dimension of the result decides. No
question is left out or treated by itself; those that differ are printed. Operands are looked for among the numbers
that the reader finds in the question's table and paragraphs.

Generated programs, with numbers up to 30 digits, are checked against an evaluator in Python's `fractions` that shares
no code with the plugin, and the same arithmetic in float64 stands beside: how often its text differs.
"""

from __future__ import annotations

import argparse
import ast
import random
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import record
import tatqa
from r1core_numeric.derivations import pointed, read_derivation
from r1core_numeric.execute import Abstained, Result, execute
from r1core_numeric.formats import Format, rounded
from r1core_numeric.programs import Program, program_from_json
from r1core_numeric.reader import read
from r1core_numeric.tables import read_table

TWO_PLACES = Format(places=2, group=False)


def derivations(data: Sequence[tatqa.Context]) -> list[dict[str, object]]:
    """The rows of the gold derivations."""
    total = right = named = found = slotted = odd = taught = 0
    for context, question in tatqa.questions(data):
        total += 1
        text, gold = question["derivation"], Fraction(str(question["answer"]))
        derivation = read_derivation(text)
        done = execute(Program(derivation.expression), derivation.numbers)
        if isinstance(done, Abstained):
            print(f"abstains: {text}: {done.reason}")
            continue
        value = tatqa.shown(done, derivation.numbers, question["scale"])
        if rounded(value, 2, "half_up") == gold:
            right += 1
            odd += done.unit.name in tatqa.PURE and question["scale"] in ("thousand", "million", "billion")
        else:
            told = f"gold {question['answer']} {question['scale']}, exactly {float(value):.6f}"
            print(f"differs: {text}: {told}; as fractions: {reference_of(text)}")
        paragraphs = [paragraph["text"] for paragraph in context["paragraphs"]]
        slots = [number for paragraph in paragraphs for number in read(paragraph)]
        slots += read_table(context["table"]["table"], caption=" ".join(paragraphs))
        taught += tatqa.meant(derivation, slots, gold, question["scale"]) is not None
        node, wanted, here = pointed(derivation, slots)
        named, found = named + wanted, found + here
        over = execute(Program(node), slots)
        power = {**tatqa.SCALES, "percent": -2}[question["scale"]]
        if isinstance(over, Result):
            slotted += rounded(over.value / Fraction(10) ** power, 2, "half_up") == gold
    print(f"{odd} of {total} are ratios with a scale in the data set: their number is compared, not the scale")
    slots_said = f"reproduced over the reader's slots, scale and unit from the headers, {slotted} of {total}"
    rows = [
        (f"gold derivations of TAT-QA reproduced, {right} of {total}", right / total, 0.995),
        (f"their operands found by the reader in table and paragraphs, {found} of {named}", found / named, None),
        (slots_said, slotted / total, None),
        (f"of one operation over two groups of the prompt's numbers, {taught} of {total}", taught / total, None),
    ]
    return [row(figure, value, target) for figure, value, target in rows]


def reference_of(text: str) -> str:
    """A derivation by Python's own grammar over fractions, for those that differ."""
    cleaned = text.replace(",", "").replace("$", "").replace("[", "(").replace("]", ")").replace("%", "/100").strip()

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            return {ast.Add: left.__add__, ast.Sub: left.__sub__, ast.Mult: left.__mul__, ast.Div: left.__truediv__}[
                type(node.op)
            ](right)
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand)
        return Fraction(str(ast.get_source_segment(cleaned, node)))

    return f"{float(value(ast.parse(cleaned, mode='eval').body)):.6f}"


def number(rng: random.Random) -> str:
    """A number of up to 30 digits as accountants write it."""
    digits, places = rng.randint(1, 30), rng.choice((0, 0, 1, 2, 4))
    value = Decimal(rng.randrange(10 ** (digits - 1), 10**digits)) if digits > 1 else Decimal(rng.randint(0, 9))
    sign, figures, _ = value.as_tuple()
    text = f"{Decimal((sign, figures, -min(places, digits))):,f}"
    return f"({text})" if rng.random() < 0.2 else text


def spoken(text: str) -> Fraction:
    """What such a number is worth, read by itself."""
    plain = text.strip("()").replace(",", "")
    return -Fraction(plain) if text.startswith("(") else Fraction(plain)


def expression(rng: random.Random, slots: int, depth: int) -> Any:
    if depth == 0 or rng.random() < 0.2:
        return {"slot": rng.randrange(slots)}
    op = rng.choice(("add", "subtract", "multiply", "divide", "average", "negate", "percent_change", "sum", "maximum"))
    count = {"subtract": 2, "divide": 2, "negate": 1, "percent_change": 2}.get(op, rng.randint(2, 5))
    return {"op": op, "args": [expression(rng, slots, depth - 1) for _ in range(count)]}


def evaluate(node: Any, values: Sequence[Any], one: Any) -> Any:
    """The reference: plain recursion over Python numbers, fractions or floats."""
    if "slot" in node:
        return values[node["slot"]]
    args = [evaluate(arg, values, one) for arg in node["args"]]
    total = args[0]
    match node["op"]:
        case "add" | "sum" | "average":
            for arg in args[1:]:
                total = total + arg
            return total / len(args) if node["op"] == "average" else total
        case "multiply":
            for arg in args[1:]:
                total = total * arg
            return total
        case "subtract":
            return args[0] - args[1]
        case "divide":
            return args[0] / args[1]
        case "percent_change":
            return (args[0] - args[1]) / args[1]
        case "maximum":
            return max(args)
    return -total


def half_up(value: Fraction) -> str:
    """Two decimals, half away from zero, by integers; not the plugin's rounding."""
    cents = (abs(value) * 200 + 1) // 2
    return f"{'-' if value < 0 and cents else ''}{cents // 100}.{cents % 100:02d}"


def generated(draws: int, seed: int) -> list[dict[str, object]]:
    """The rows of generated programs, all over unstated units or over money of one currency."""
    rng = random.Random(seed)
    exact = floats = ran = 0
    while ran < draws:
        texts = [number(rng) for _ in range(6)]
        slots = [slot for text in texts for slot in read_table([["", "a"], ["row", text]]) if slot.kind == "quantity"]
        tree = expression(rng, len(texts), 3)
        values = [spoken(text) for text in texts]
        try:
            wanted = evaluate(tree, values, Fraction(1))
        except ZeroDivisionError:
            continue
        done = execute(Program(program_from_json({"expression": tree}).expression, TWO_PLACES), slots)
        if isinstance(done, Abstained):
            continue  # units that do not go together: a ratio was added to a number
        ran += 1
        scale = 100 if done.written.number.unit.name == "percent" else 1
        exact += done.value == wanted and done.written.text.strip("%") == half_up(wanted * scale)
        floats += binary(tree, values, scale) != half_up(wanted * scale)
    figure = f"generated programs with numbers up to 30 digits, value and text as fractions say, {exact} of {ran}"
    peer = f"float64, same programs: {floats / ran:.1%} of the texts differ"
    return [row(figure, exact / ran, 1.0, peer)]


def binary(tree: Any, values: Sequence[Fraction], scale: int) -> str:
    """The same in float64, written to two decimals."""
    try:
        return f"{evaluate(tree, [float(value) for value in values], 1.0) * scale:.2f}"
    except (ZeroDivisionError, OverflowError):
        return "none"


def row(figure: str, value: float, target: float | None, peer: str | None = None) -> dict[str, object]:
    met = None if target is None else value >= target
    return {"figure": figure, "value": value, "unit": "share", "target": target, "met": met, "peer": peer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tatqa", type=Path, default=tatqa.SHARED)
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = generated(arguments.draws, arguments.seed)
    if arguments.tatqa.exists():
        rows += derivations(tatqa.contexts(arguments.tatqa))
    else:
        print(f"{arguments.tatqa} is not there: the gold derivations are left out")
    record.write("numeric_programs", rows)


if __name__ == "__main__":
    main()
