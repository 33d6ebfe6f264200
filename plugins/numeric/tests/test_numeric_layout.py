"""Tables in prompts: how they are written, that numbers keep what the headers say, and programs that point at cells."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example as one_case
from hypothesis import given
from hypothesis import strategies as st
from r1core_numeric.annotator import KIND, NumberAnnotator
from r1core_numeric.config import POINTER, NumericConfig
from r1core_numeric.constraint import grounds
from r1core_numeric.execute import Abstained, Result, attempt, execute
from r1core_numeric.layout import lay_out
from r1core_numeric.learned import ASKED_KIND, ROLE_KIND, ChoiceAnnotator
from r1core_numeric.plugin import NumericPlugin
from r1core_numeric.programs import node_to_json, program_from_json
from r1core_numeric.prompt import TableAnnotator
from r1core_numeric.slots import TABLE_KIND, slots_of
from r1core_numeric.tables import head_rows, read_table

from r1core import api
from r1core.compose import Chain

SALES = [
    ["", "Years Ended September 30,", ""],
    ["(in thousands)", "2019", "2018"],
    ["Fixed  Price", " $1,452.4", "$1,146.2"],
    ["", "", ""],
    ["Costs:"],
    ["Other", "(44.1)", ""],
]
WRITTEN = """Years Ended September 30,
(in thousands)
Fixed  Price | 2019: $1,452.4 | 2018: $1,146.2
Costs:
Other | 2019: (44.1)"""
CONFIG = NumericConfig(table="prompt", layer=POINTER)
CHANGE = {"op": "subtract", "args": [{"cell": [2, 1]}, {"cell": [2, 2]}]}


def example(question: str, table: Any = SALES, **fields: Any) -> api.Example:
    return api.Example("a", (api.Message("user", question),), "t", fields={"table": table, **fields})


def shown(one: api.Example) -> api.Example:
    return ChoiceAnnotator(CONFIG)(NumberAnnotator(CONFIG)(TableAnnotator(CONFIG)(one)))


def of(one: api.Example, kind: str) -> list[str]:
    return [one.messages[s.part].content[s.start : s.end] for s in one.spans if s.kind == kind]


def test_a_table_is_written_line_by_line_with_headers_before_cells() -> None:
    laid = lay_out(SALES)
    assert laid.text == WRITTEN
    assert [laid.text[n.start : n.end] for n in laid.numbers] == [
        "September 30", "2019", "$1,452.4", "2018", "$1,146.2", "(44.1)",
    ]  # fmt: skip
    values = {n.text: n.value for n in laid.numbers if n.kind == "quantity"}
    assert values == {"$1,452.4": 1_452_400, "$1,146.2": 1_146_200, "(44.1)": -44_100}


@pytest.mark.parametrize(
    ("rows", "text"),
    [([], ""), ([["a"]], "a"), ([["a", "5"]], "a | 5"), ([["", "x", "y"], ["a", "5", ""]], "a | x: 5")],
)
def test_small_tables(rows: list[list[str]], text: str) -> None:
    assert lay_out(rows).text == text


CELLS = st.sampled_from(["", " ", "Sales", "2019", "(1.5)", "$ 12,000", "-", "Note 5", "7%", "in millions", "3\n4"])


@given(st.lists(st.lists(CELLS, max_size=5), max_size=6), st.sampled_from(["", "Caption (in thousands)"]))
@one_case([[], ["Sales", "", "3\n4"], ["", "(1.5)"]], "")  # a header over a column without cells is not written
def test_every_number_of_a_table_stands_where_it_is_said_to(rows: list[list[str]], caption: str) -> None:
    laid = lay_out(rows, caption=caption)
    for number in laid.numbers:
        assert laid.text[number.start : number.end].split() == number.text.split()
    ends = [0, *(n.end for n in laid.numbers)]
    assert all(end <= n.start for end, n in zip(ends, laid.numbers, strict=False))
    there = {(n.cell.row, n.cell.column, n.text, n.amount, n.scale) for n in laid.numbers if n.cell}
    quantities = [n for n in read_table(rows, caption=caption) if n.kind == "quantity" and n.cell and n.cell.row]
    filled = {column for row in rows[head_rows(rows) :] for column, cell in enumerate(row) if cell.strip()}
    written = [n for n in quantities if n.cell and (n.cell.row >= head_rows(rows) or n.cell.column in filled)]
    body = [n for n in written if n.cell and rows[n.cell.row][0].strip() and n.cell.column]
    assert all(
        (n.cell.row, n.cell.column, n.text, n.amount, n.scale) in there for n in body if n.cell and n.cell.column_header
    )


def test_the_table_stands_behind_the_question_and_before_the_passages() -> None:
    one = shown(example("By how much did it grow?\n\nSales rose in 2019, by 9 people."))
    assert one.messages[0].content == f"By how much did it grow?\n\n{WRITTEN}\n\nSales rose in 2019, by 9 people."
    assert of(one, TABLE_KIND) == [WRITTEN]
    assert of(one, KIND)[-2:] == ["2019", "9"]
    assert of(one, ASKED_KIND) == ["?"]
    assert shown(one) == one


def test_numbers_of_a_shown_table_count_once_with_the_scale_of_their_headers() -> None:
    one = shown(example("How much?"))
    slots = slots_of(one)
    assert [n.value for n in slots if n.kind == "quantity"] == [1_452_400, 1_146_200, -44_100]
    assert len(slots) == len(of(one, KIND))
    may = grounds(one, CONFIG).allowed
    assert may == grounds(one.without_answer(), CONFIG).allowed


def test_a_program_over_cells_teaches_roles_and_is_executed_with_and_without_the_table_in_the_prompt() -> None:
    one = shown(example("By how much did it grow?", program=CHANGE))
    spans = [s for s in one.spans if s.kind == ROLE_KIND]
    assert {one.messages[0].content[s.start : s.end]: s.value for s in spans if s.value} == {
        "$1,452.4": 1, "$1,146.2": 2,
    }  # fmt: skip
    program = program_from_json(CHANGE)
    assert node_to_json(program.expression) == CHANGE
    for slots in (slots_of(one), slots_of(example("By how much did it grow?"))):
        done = execute(program, slots)
        assert isinstance(done, Result)
        assert done.value == 306_200


def test_a_program_over_cells_that_the_prompt_does_not_show_is_refused() -> None:
    hidden = NumericConfig(layer=POINTER)
    with pytest.raises(api.UserError, match=r"cell \[2, 1\] is no single quantity of the prompt"):
        ChoiceAnnotator(hidden)(NumberAnnotator(hidden)(example("By how much did it grow?", program=CHANGE)))
    with pytest.raises(api.UserError, match=r"cell \[3, 1\]"):
        shown(example("How much?", program={"op": "sum", "args": [{"cell": [2, 1]}, {"cell": [3, 1]}]}))


@pytest.mark.parametrize(("place", "said"), [([3, 1], "holds no quantities"), ([9, 9], "holds no quantities")])
def test_a_cell_without_a_quantity_abstains(place: list[int], said: str) -> None:
    done = execute(program_from_json({"op": "negate", "args": [{"cell": place}]}), read_table(SALES))
    assert isinstance(done, Abstained)
    assert said in done.reason


@pytest.mark.parametrize("cell", [3, [1], [1, -2], [1, 2, 3], ["a", 1], [True, 1]])
def test_a_cell_that_is_none_is_refused(cell: Any) -> None:
    with pytest.raises(api.UserError, match=r"program\.cell"):
        program_from_json({"cell": cell})


def test_a_prompt_whose_table_was_changed_is_refused() -> None:
    one = shown(example("How much?"))
    changed = api.Example(one.id, one.messages, one.task, fields={"table": [["", "2019"], ["a", "3"]]}, spans=one.spans)
    with pytest.raises(api.UserError, match=r"the table in message 0 is not that of fields\.table"):
        slots_of(changed)


def test_a_program_of_a_layer_whose_format_does_not_fit_abstains() -> None:
    share = {"expression": {"op": "sum", "args": [{"cell": [2, 1]}]}, "format": {"style": "percent"}}
    done = attempt(program_from_json(share), read_table(SALES))
    assert isinstance(done, Abstained)
    assert "cannot be written as `percent`" in done.reason
    assert [one.reason for one in grounds(example("x"), CONFIG, share).abstained] == [done.reason]


@pytest.mark.parametrize("settings", [{"table": "prompt"}, {"table": "prompt", "layer": "numeric/pointer"}])
def test_every_setting_gives_a_chain_in_which_the_table_is_written_first(settings: dict[str, str]) -> None:
    steps = NumericPlugin().preprocess(api.Context("", NumericConfig(**settings), seed=0))
    chain = Chain(steps)
    assert chain.steps[0].name == "numeric/table"
    asked = api.Example("a", (api.Message("user", "What is it?"),), "t", fields={"table": SALES})
    assert chain.annotate(asked).messages[0].content == f"What is it?\n\n{WRITTEN}"
