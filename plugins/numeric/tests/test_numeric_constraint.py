"""No number without provenance comes out, whatever the tokens; results are forced; attacks on both."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from r1core_numeric.claims import allowed, provenance, unsupported
from r1core_numeric.config import NumericConfig
from r1core_numeric.constraint import grounds
from r1core_numeric.plugin import NumericPlugin
from r1core_numeric.reader import read

from r1core import api
from r1core.decode.constraints import Request, allowed_bool, may_end
from r1core.decode.vocabulary import Vocabulary
from r1core.testing.tiny import tiny_tokenizer

VOCABULARY = Vocabulary.from_tokenizer(tiny_tokenizer())
PROMPT = (
    "Revenue was $1.2 million in 2019, up 12.5% from $1.1 million; a loss of (5.3)%; 12 and 34 people in two segments. "
    "March 3, 2019. Note 5. 250 bp. EUR 7, 30 days, $2.79 per share, Q4, 10-K, 1.234,56."
)
TABLE = [["(in thousands)", "2019", "2018"], ["Sales", "$1,496.5", "1,202.9"], ["Other", "(44.1)", "56.7"]]
CHANGE = {"op": "percent_change", "args": [{"slot": 2}, {"slot": 3}]}


def example(prompt: str = PROMPT, **fields: Any) -> api.Example:
    return api.Example("case-7", (api.Message("user", prompt),), "qa", fields=fields)


def constraints(**config: Any) -> tuple[Any, Any]:
    forbid, require = NumericPlugin().decode_constraint(api.Context("", NumericConfig(**config), seed=0))
    return forbid, require


def start(asked: api.Example, outputs: dict[str, Any] | None = None, **config: Any) -> Any:
    return constraints(**config)[0].start(Request(asked, VOCABULARY, outputs or {}))


def written(state: Any, text: str) -> str | None:
    """Follow single bytes; what got out before one was refused, None where all did and the text may end there."""
    out = b""
    for byte in text.encode():
        token = VOCABULARY.token_bytes.index(bytes([byte]))
        if not state.allows(token):
            assert state.explain(token)
            return out.decode("utf-8", "replace")
        out, state = out + bytes([byte]), state.advance(token)
    return None if may_end(state, VOCABULARY.eos_ids) else out.decode()


FINE = [
    "Revenue was $1.2 million.", "$1,200,000", "USD 1.2 million", "1.2 million dollars", "$1.2m", "1,200 thousand",
    "12.5 percent of it", "12.50%", "+12.5%", "1,250 bp", "12 people", "12, 34", "12 and 34", "12.0", "12 minutes",
    "two segments", "one of them", "tenant", "-5.3%", "\u22125.3%", "(5.3)%", "(5.3%)", "-530 bps", "2019",
    "March 3, 2019", "Note 5", "12 (2019)", "12 to 34", "€7", "7 euros", "2.5%", "30 days",
    "$2.79 per share", "$2.79", "Q4", "10-K", "1.234,56", "12 + 34 = 34", "**12**", "naïve 12 😀 患者", "no number",
    "It is \"12\".", "12 | 34", "12\n34", "in 2019: 12; 34!", "[see the note] 12",
]  # fmt: skip


@pytest.mark.parametrize("text", FINE)
def test_what_the_input_states_may_be_written(text: str) -> None:
    assert written(start(example()), text) is None
    assert constraints()[0].recheck(example(), text) == []


ATTACKS = [
    "13", "1234", "12 34", "12\u00a034", "12\u202f34", "12\u200b34", "12'34", "12.34", "12,34", "12-34", "12/34",
    "12e6", "12k", "12 k", "12m.", "12 million", "12-million", "12\nmillion", "12 (million)", "12 thousand", "12%",
    "12 %", "12\uff05", "12 percent", "12 per cent", "12 bps", "12x", "12 times", "12-fold", "12‰", "$12", "USD 12",
    "12 USD", "12 dollars", "12 €", "12 US dollars", "-12", "\u221212", "- 12", "(12)", "( 12 )", "minus 12",
    "negative 12", "12.5", "0.125", "12.5 million", "5.3%", "250", "1.2", "$1.2", "$1.2 billion", "1.2e6",
    "$1.3 million", "1.2 to 7 million", "12 to 34 million", "12 – 34 %", "2018", "March 4, 2019", "March 12",
    "12 March", "12 of March", "Note 12", "Section 12", "Q3", "Q12", "10-Q", "FY19", "12th", "A12", "12A", "#12",
    "twelve", "three", "twenty-five", "two hundred", "two million", "a million", "one hundred", "a dozen", "ten.",
    "\u00b2", "\u00bd", "\u4e00", "\u2163", "\u2460", "\u0665", "\U0001d7d3", "12\u0665", "\uff11\uff12", "1\uff12",
    "7 USD",
    "$7", "30 years", "30 %", "12 days and 30 years", "$1.2 million per share", "12 \u00d7 10^6", "12*34", "12^34",
    "12:34", "12_34", "٫12٫5", "12\u066b5", "$2.79 million", "TWELVE", "Three", "12 MILLION", "12\uff4d\uff49llion",
    "30 days 12", "5", "5 people", "0", "00012", "012", "12.000.", "+12.6%", "250 basis points of 3", "1.1.",
]  # fmt: skip


@pytest.mark.parametrize("text", ATTACKS)
def test_what_it_does_not_state_is_refused_before_it_stands_there(text: str) -> None:
    got = written(start(example()), text)
    assert got is not None
    # what got out is clean, and a finished text that ends there states nothing new either
    assert constraints()[0].recheck(example(), "So it is " + text) or text in CLEAN_AS_TEXT


CLEAN_AS_TEXT = {
    # refused while generating, though the recheck finds nothing in them: they may be taken for one number and, read
    # apart, say nothing new; or they are true in a form that is not among the renderings
    "12 34", "12\u200b34", "- 12", "12 (million)", "( 12 )", "12^34", "12*34", "012", "00012", "12\u202f34",
    "12\u00a034",
    "1.2e6", "12.000.", "12 \u00d7 10^6", "12 – 34 %", "5", "5 people", "30 days 12", "12 March", "12 to 34 million",
    "12-34", "(12)", "0.125", "\uff11\uff12", "1\uff12", "twelve", "TWELVE", "a dozen",
}  # fmt: skip


def test_a_random_walk_over_tokens_states_nothing_new() -> None:
    rng = random.Random(7)
    asked = example(table=TABLE)
    forbid, _ = constraints(absolute=True, currency="USD")
    may = grounds(asked, NumericConfig(absolute=True, currency="USD")).allowed
    digits = [t for t, data in enumerate(VOCABULARY.token_bytes) if any(48 <= b < 58 or b in b"$%(,.-" for b in data)]
    numbers = 0
    for _ in range(160):
        state, tokens = forbid.start(Request(asked, VOCABULARY)), []
        for _ in range(rng.randint(1, 25)):
            options = np.flatnonzero(allowed_bool(state.mask(), VOCABULARY.size))
            liked = [t for t in digits if t in set(options.tolist())]
            token = int(rng.choice(liked if liked and rng.random() < 0.6 else options))
            if token in VOCABULARY.eos_ids:
                break
            state = state.advance(token)
            tokens.append(token)
        if may_end(state, VOCABULARY.eos_ids):
            text = VOCABULARY.text_bytes(tokens).decode()
            numbers += len(read(text))
            assert unsupported(text, may) == (), text
    assert numbers > 30


def test_numbers_of_a_table_are_written_with_the_scale_of_its_header() -> None:
    state = start(example("What were sales?", table=TABLE))
    for text in ("$1,496.5 thousand", "$1,496,500", "1.4965 million", "-44.1 thousand", "2018", "1,202.9 thousand"):
        assert written(state, text) is None, text
    for text in ("1,496.5", "44.1 thousand", "$1,202.9 thousand"):
        assert written(state, text) is not None, text
    assert written(start(example("?", table=TABLE), currency="USD"), "$1,202.9 thousand") is None
    assert written(start(example("?", table=TABLE), absolute=True), "fell by 44.1 thousand") is None


# -- results ---------------------------------------------------------------------------------------------------------


def asked_for_change(**fields: Any) -> api.Example:
    return example("By how much did sales change?", table=TABLE, program=CHANGE, **fields)


def test_the_first_quantity_is_the_result_and_nothing_else() -> None:
    forbid, require = constraints()
    asked = asked_for_change()
    result = "24.41%"  # (1,496.5 - 1,202.9) / 1,202.9
    assert grounds(asked, NumericConfig()).results[0].written.text == result
    for text in ("It rose by 24.41%.", "In 2019 it rose by 24.41% to $1,496.5 thousand.", "24.41 % hence"):
        state = forbid.start(Request(asked, VOCABULARY))
        assert (written(state, text) is None) == ("24.41 %" not in text)
    for text in ("$1,496.5 thousand", "24.4%", "25%", "24.42%", "-24.41%", "24.41 million"):
        assert written(forbid.start(Request(asked, VOCABULARY)), text) is not None
    needs = require.start(Request(asked, VOCABULARY))
    assert written(needs, "It rose.") == "It rose."  # may not end yet
    assert written(needs, "It rose by 24.41%.") is None
    (end,) = VOCABULARY.eos_ids
    assert needs.explain(end)[0].text == "the result 24.41% is missing"
    assert [r.text for r in require.recheck(asked, "It rose.")] == ["24.41%"]
    assert forbid.recheck(asked, "It rose by 24.41% to 25%")[0].text == "25%"


def test_the_spelling_of_a_quantity_in_the_prompt_does_not_come_before_the_result_either() -> None:
    asked = example(program={"op": "subtract", "args": [{"slot": 0}, {"slot": 3}]})
    state = start(asked)
    for text in ("12 people", "$1.2 million", "12.5%", "two segments"):
        assert written(state, text) is not None, text
        assert written(state, f"It is $100,000, {text}") is None, text
    assert written(state, "In 2019 (March 3, 2019; Note 5) it was $100,000.") is None


def test_digits_of_a_result_are_forced_one_after_the_other() -> None:
    state = start(asked_for_change())
    for byte in b"It rose by ":
        state = state.advance(VOCABULARY.token_bytes.index(bytes([byte])))
    state = state.advance(VOCABULARY.token_bytes.index(b"2"))  # or a year of the input: it is no quantity
    rest = b"4.41%"
    while rest:
        mask = allowed_bool(state.mask(), VOCABULARY.size)
        open_to = {data for t, data in enumerate(VOCABULARY.token_bytes) if mask[t] and data.isascii() and data}
        assert rest[:1] in open_to
        assert all(rest.startswith(data) or (rest == b"4.41%" and b"019".startswith(data)) for data in open_to)
        state, rest = state.advance(VOCABULARY.token_bytes.index(rest[:1])), rest[1:]


def test_behind_an_equals_sign_nothing_but_the_result_may_follow() -> None:
    config = {"results": "anywhere"}
    state = start(asked_for_change(), **config)
    assert written(state, "$1,496.5 thousand against 1,202.9 thousand = 24.41%") is None
    assert written(state, "the change = about") == "the change = "
    assert written(state, "the change = 2019") == "the change = 2"


def test_an_answer_can_be_the_results_and_nothing_else() -> None:
    total = {"name": "total", "expression": {"op": "sum", "args": [{"column": 1}]}, "format": {"scale": "thousand"}}
    asked = example("?", table=TABLE, program=[CHANGE, total])
    forbid, require = constraints(results="answer")
    state = forbid.start(Request(asked, VOCABULARY))
    assert written(state, "24.41%; $1,452.4 thousand") is None
    assert written(require.start(Request(asked, VOCABULARY)), "24.41%") == "24.41%"
    for text in ("It", "24.41% more", "$1,452.4 thousand", "24.41%; $1,452.4 thousand."):
        assert written(state, text) is not None, text


def test_where_a_result_is_due_one_blank_may_stand_before_it_and_no_more() -> None:
    state = start(example("?", table=TABLE, program=CHANGE), results="answer")
    assert written(state, "\n24.41%") is None
    assert written(state, "  24.41%") == " "
    total = {"name": "total", "expression": {"op": "sum", "args": [{"column": 1}]}, "format": {"scale": "thousand"}}
    both = start(example("?", table=TABLE, program=[CHANGE, total]), results="answer")
    assert written(both, "24.41%;  $1,452.4 thousand") == "24.41%; "


def test_programs_of_a_layer_are_run_and_remembered_for_the_recheck() -> None:
    forbid, require = constraints(layer="numeric/pointer")
    asked = example("?", table=TABLE)
    state = forbid.start(Request(asked, VOCABULARY, {"numeric/pointer": CHANGE}))
    require.start(Request(asked, VOCABULARY, {"numeric/pointer": CHANGE}))
    assert written(state, "by 24.41%") is None
    assert forbid.recheck(asked, "by 24.41%") == []
    other = example("another", table=TABLE)
    assert forbid.recheck(other, "by 24.41%") != []
    none = forbid.start(Request(other, VOCABULARY, {"numeric/pointer": None}))
    assert written(none, "by 24.41%") is not None


def test_what_the_own_layer_learns_from_is_not_executed_and_metrics_know_what_it_chose() -> None:
    plugin = NumericPlugin()
    context = api.Context("", NumericConfig(layer="numeric/pointer", results="anywhere"), seed=0)
    forbid, _ = plugin.decode_constraint(context)
    asked = example("?", table=TABLE, program=CHANGE)
    alone = forbid.start(Request(asked, VOCABULARY, {"numeric/pointer": None}))
    assert written(alone, "by 24.41%") is not None
    unsupported_numbers = plugin.metric(context)[1]
    answered = replace(asked, messages=(*asked.messages, api.Message("assistant", "by 24.41%")))
    assert unsupported_numbers(["by 24.41%"], [""], [answered]) == 1.0
    forbid.start(Request(asked, VOCABULARY, {"numeric/pointer": CHANGE}))
    assert unsupported_numbers(["by 24.41%"], [""], [answered]) == 0.0


def test_a_program_that_abstains_leaves_the_input_or_nothing(caplog: pytest.LogCaptureFixture) -> None:
    wrong = {"op": "divide", "args": [{"slot": 2}, {"op": "subtract", "args": [{"slot": 2}, {"slot": 2}]}]}
    asked = example("?", table=TABLE, program=wrong)
    state = start(asked)
    assert "case-7: program result abstains: the divisor is zero" in caplog.text
    assert written(state, "$1,496.5 thousand") is None
    silent = start(asked, on_abstain="silent")
    assert written(silent, "$1,496.5 thousand") is not None
    assert written(silent, "It cannot be calculated for 2019.") is None
    assert constraints()[1].start(Request(asked, VOCABULARY)) is None


def test_a_program_in_no_readable_form_stops_with_one_line() -> None:
    with pytest.raises(api.UserError, match=r"example case-7: fields.program\[0\]: unknown operation 'pow'"):
        start(example(program={"op": "pow", "args": []}))


def test_equal_requests_share_masks() -> None:
    forbid, _ = constraints()
    first, second = (forbid.start(Request(example(), VOCABULARY)) for _ in range(2))
    assert first.key == second.key
    assert first.mask() is second.mask()
    assert forbid.start(Request(example("Other 5."), VOCABULARY)).key != first.key


def test_provenance_tells_where_each_number_comes_from() -> None:
    may = allowed(read("Sales were $1.2 million on March 3, 2019."))
    found = {o.number.text: o.sources for o in provenance("It was 1,200 thousand in 2019, not 7.", may)}
    assert found == {
        "1,200 thousand": ("characters 11-23: $1.2 million",),
        "2019": ("characters 27-40: March 3, 2019",),
        "7": (),
    }


def test_the_fingerprint_follows_the_configuration() -> None:
    forbid, require = constraints()
    assert forbid.fingerprint() == constraints()[0].fingerprint()
    assert len({forbid.fingerprint(), require.fingerprint(), constraints(absolute=True)[0].fingerprint()}) == 3


def test_a_result_is_written_as_it_is_and_in_no_look_alike_signs() -> None:
    for text in ("24\u202441%", "24.41\uff05", "\uff1224.41%"):
        state = start(example("?", table=TABLE, program=CHANGE), results="answer")
        assert written(state, text) is not None, text
    euros = {"op": "multiply", "args": [{"declared": "7.5", "unit": "EUR", "why": "fee"}, {"constant": "two"}]}
    state = start(example("?", program=euros), results="answer")
    assert written(state, "€15") is None
    swiss = {"op": "multiply", "args": [{"declared": "7.5", "unit": "CHF", "why": "fee"}, {"constant": "two"}]}
    state = start(example("?", program=swiss), results="answer")
    assert written(state, "CHF 15") is None
    assert written(state, "chf 15") is not None
