"""Tables: headers, scales and units out of headers, and years that are no values."""

from __future__ import annotations

from typing import Any

import pytest
from r1core_numeric.slots import slots_of
from r1core_numeric.tables import read_table, scaling

from r1core import api

SALES = [
    ["", "Years Ended September 30,", ""],
    ["(in thousands, except per share data)", "2019", "2018"],
    ["Fixed Price", "$  1,452.4", "$  1,146.2"],
    ["Other", "(44.1)", "56.7 %"],
    ["Diluted earnings per share", "$2.79", "2.10"],
    ["Shares outstanding", "1,000", "900"],
]


def test_cells_have_scale_unit_sign_and_headers() -> None:
    found = {n.text: n for n in read_table(SALES) if n.kind == "quantity"}
    assert found["$  1,452.4"].value == 1_452_400
    assert str(found["$  1,452.4"].unit) == "USD"
    cell = found["$  1,452.4"].cell
    assert cell is not None
    assert (cell.row, cell.column, cell.row_header) == (2, 1, ("Fixed Price",))
    assert cell.column_header == ("Years Ended September 30,", "2019")
    assert found["$  1,146.2"].cell.column_header == ("Years Ended September 30,", "2018")  # type: ignore[union-attr]
    assert found["(44.1)"].value == -44_100
    assert (found["56.7 %"].fraction * 1000, found["56.7 %"].unit.name) == (567, "percent")
    assert (str(found["$2.79"].value), str(found["$2.79"].unit)) == ("2.79", "USD/share")
    assert found["2.10"].scale == 0
    assert [n.text for n in read_table(SALES) if n.kind == "year"] == ["2019", "2018"]


@pytest.mark.parametrize(
    ("header", "scale", "currency"),
    [
        ("(in thousands)", 3, ""),
        ("In millions, except per share", 6, ""),
        ("$ in millions", 6, ""),
        ("(US$ millions)", 6, "USD"),
        ("£m", 6, "GBP"),
        ("$’000", 3, "USD"),
        ("(000s)", 3, ""),
        ("(amounts in billions of US dollars)", 9, "USD"),
        ("(in EUR thousands)", 3, "EUR"),
        ("Sales", None, ""),
        ("the 10 million users", None, ""),
    ],
)
def test_headers_that_state_a_scale(header: str, scale: int | None, currency: str) -> None:
    found = scaling(header)
    assert (found.scale, found.currency) == (scale, currency)


def test_a_percent_column_and_a_caption() -> None:
    rows = [["", "Amount", "% Change"], ["a", "5", "7"], ["Tax rate (%)", "21", "3"]]
    found = {n.text: n for n in read_table(rows, caption="Sales (in millions)")}
    assert (found["5"].value, found["7"].unit.name, found["21"].unit.name) == (5_000_000, "percent", "percent")
    assert not found["5"].stated


def test_slots_are_those_of_messages_then_of_the_table() -> None:
    messages = (api.Message("user", "Sales of $5?"), api.Message("assistant", "$7"))
    fields: dict[str, Any] = {"table": {"rows": [["", "2019"], ["a", "3"]], "caption": "in thousands"}}
    found = slots_of(api.Example("x", messages, "t", fields=fields))
    assert [(n.text, n.kind, str(n.value)) for n in found] == [
        ("$5", "quantity", "5"), ("2019", "year", "2019"), ("3", "quantity", "3E+3"),
    ]  # fmt: skip


@pytest.mark.parametrize("table", ["a table", [1], [["", 1.5]], {"caption": "x"}])
def test_a_table_that_is_none_is_one_clear_line(table: Any) -> None:
    with pytest.raises(api.UserError, match=r"example x: fields\.table"):
        slots_of(api.Example("x", (), "t", fields={"table": table}))
