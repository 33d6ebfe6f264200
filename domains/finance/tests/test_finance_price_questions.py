"""Questions on prices: against the plugin that executes programs, which shares no code with the data set."""

from __future__ import annotations

import datetime
from fractions import Fraction

import pytest
from r1core_finance import price_questions, prices
from r1core_finance.price_questions import PriceQuestions, written
from r1core_numeric.annotator import NumberAnnotator
from r1core_numeric.config import NumericConfig
from r1core_numeric.execute import Result, execute
from r1core_numeric.learned import ROLE_KIND, ChoiceAnnotator
from r1core_numeric.programs import program_from_json
from r1core_numeric.prompt import TableAnnotator
from r1core_numeric.slots import slots_of

from r1core import api

pytest.importorskip("arch", reason="the prices are in the wheels arch and skfolio")
SPLITS = ("train", "val", "test")


def rows_of(split: api.Split) -> list[api.Example]:
    return list(PriceQuestions().read(split))


def test_no_stock_and_no_day_stands_in_two_splits() -> None:
    stocks, days = [], []
    for split in SPLITS:
        tables = [row.fields["table"] for row in rows_of(split)]
        stocks.append({name for table in tables for name in table[0][1:]})
        days.append({datetime.datetime.strptime(row[0], "%B %d, %Y") for table in tables for row in table[1:]})
    assert [len(one) for one in stocks] == [12, 4, 4]
    assert len(set.union(*stocks)) == 20
    assert max(days[0]) < min(days[1]) <= max(days[1]) < min(days[2])


def test_cells_are_the_prices_of_the_file() -> None:
    known = {one.name: dict(zip(one.dates, one.closes, strict=True)) for one in prices.stocks()}
    for row in rows_of("test")[::50]:
        table = row.fields["table"]
        for line in table[1:]:
            day = datetime.datetime.strptime(line[0], "%B %d, %Y").date()
            assert list(line[1:]) == [known[name][day] for name in table[0][1:]]
        assert row.as_of == day.isoformat()


@pytest.mark.parametrize("split", ["val", "test"])
def test_every_answer_is_what_the_plugin_executes_and_can_be_learnt(split: api.Split) -> None:
    config = NumericConfig(table="prompt", layer="numeric/pointer")
    asked = set()
    for row in rows_of(split)[:140]:
        shown = ChoiceAnnotator(config)(NumberAnnotator(config)(TableAnnotator(config)(row)))
        done = execute(program_from_json(row.fields["program"]), slots_of(shown, config.reading))
        assert isinstance(done, Result)
        assert done.written.text == row.messages[1].content
        roles = [span.value for span in shown.spans if span.kind == ROLE_KIND]
        assert sum(role > 0 for role in roles) in (2, 3)
        asked.add((row.fields["kind"], row.messages[0].content.split()[0]))
    assert {kind for kind, _ in asked} == set(price_questions.WORDINGS)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1/3", "0.33"),
        ("-1/8", "-0.125"),
        ("1234567/10", "123,456.7"),
        ("2/3", "0.67"),
        ("-1/300", "0.00"),
        ("40", "40"),
        ("1/400", "0.0025"),
    ],
)
def test_how_an_answer_is_written(value: str, text: str) -> None:
    assert written(Fraction(value)) == text
