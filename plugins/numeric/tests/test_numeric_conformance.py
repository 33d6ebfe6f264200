"""The plugin keeps to the contract of the core."""

from __future__ import annotations

from collections.abc import Callable

from r1core import api

EXAMPLES = [
    api.Example("a", (api.Message("user", "Sales rose from $1.2 million to $1.5 million, by 25 %. Note 5."),), "qa"),
    api.Example(
        "b",
        (api.Message("user", "What is the change?"),),
        "qa",
        fields={
            "table": [["", "2019", "2018"], ["Sales", "$1,496.5", "$1,202.9"], ["Other", "(44.1)", "12 %"]],
            "program": {"op": "percent_change", "args": [{"slot": 2}, {"slot": 3}]},
        },
    ),
]


def test_numeric_conforms(r1core_check: Callable[..., None]) -> None:
    r1core_check("numeric", examples=EXAMPLES)


def test_numeric_conforms_with_every_setting(r1core_check: Callable[..., None]) -> None:
    config = {"results": "anywhere", "absolute": True, "currency": "EUR", "locale": "en", "on_abstain": "silent"}
    r1core_check("numeric", config=config, examples=EXAMPLES)
