"""Advice held to a limit: what can be written, what stops it, what the recheck finds, how many units are allowed."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from r1core_var import advice
from r1core_var.advice_config import AdviceConfig
from r1core_var.advice_facts import risk_facts
from r1core_var.advice_orders import Desk, Order
from r1core_var.advice_risk import risk_model
from r1core_var.config import VarConfig
from r1core_var.gate import portfolio_risk
from scipy import stats

from r1core import api
from r1core.decode.constraints import Request, allowed_bool, intersect
from r1core.decode.vocabulary import Vocabulary
from r1core.testing.tiny import tiny_tokenizer

VOCABULARY = Vocabulary.from_tokenizer(tiny_tokenizer())
(END,) = VOCABULARY.eos_ids
SCENARIOS = [[-1.0, -2.0, 0.5], [-2.0, 1.0, -0.25], [0.5, 0.5, 0.5], [1.0, 2.0, -1.0]]  # worst loss at 0.75 and above


def facts(**changes: Any) -> dict[str, Any]:
    """With these scenarios the risk is the worst loss; ACME alone may be bought 50 times."""
    instruments = [{"id": "ACME", "held": 0}, {"id": "ACME.B", "held": 0}, {"id": "GLOBEX", "held": 10}]
    made = {"limit": 100, "level": 0.75, "currency": "EUR", "instruments": instruments, "scenarios": SCENARIOS}
    return {"risk": {k: v for k, v in {**made, **changes}.items() if v is not None}}


def example(said: dict[str, Any] | None, task: str = "advice") -> api.Example:
    return api.Example("case-7", (api.Message("user", "What about ACME and GLOBEX?"),), task, facts=said)


def constraint(**config: Any) -> api.DecodeConstraint:
    (made,) = advice.constraints(api.Context("", VarConfig(advice=AdviceConfig(**config)), seed=0))
    return made


def state_of(made: api.DecodeConstraint, said: dict[str, Any] | None) -> Any:
    return made.start(Request(example(said), VOCABULARY))


def write(state: Any, text: str) -> tuple[str, Any]:
    """Follow the mask byte by byte: what got out, and the state it stopped in."""
    out = ""
    for character in text:
        token = VOCABULARY.token_bytes.index(character.encode()[:1])
        if not state.allows(token):
            return out, state
        out, state = out + character, state.advance(token)
    return out, state


def passes(state: Any, text: str) -> bool:
    out, after = write(state, text)
    if out == text and not after.may_end():  # where another name begins like this one, a line break ends it
        out, after = write(after, "\n")
        return out == "\n" and bool(after.may_end())
    return out == text and bool(after.may_end())


def worst(units: dict[int, int], held: tuple[float, ...] = (0, 0, 10)) -> float:
    positions = [h + units.get(i, 0) for i, h in enumerate(held)]
    return max(-sum(p * x for p, x in zip(positions, row, strict=True)) for row in SCENARIOS)


@pytest.mark.parametrize("number", range(0, 60))
def test_stop_lets_exactly_the_orders_through_that_are_within_the_limit(number: int) -> None:
    state = state_of(constraint(), facts())
    for index, name in enumerate(("ACME", "ACME.B", "GLOBEX")):
        assert passes(state, f"BUY {number} {name}") == (number > 0 and worst({index: number}) <= 100)
        assert passes(state, f"SELL {number} {name}") == (
            index == 2 and 0 < number <= 10 and worst({2: -number}) <= 100
        )


def test_stop_ends_at_the_order_and_names_position_risk_and_limit() -> None:
    out, state = write(state_of(constraint(), facts()), "BUY 500 GLOBEX")
    assert out == "BUY 500 GLOBEX"
    assert not state.may_end()
    assert not allowed_bool(state.mask(), VOCABULARY.size).any()
    (reason,) = state.explain(END)
    assert reason == api.Reason(
        "var/limit",
        "facts.risk: ES 75 % at most 100.00 EUR",
        "BUY 500 GLOBEX: ES 75 % with 500 would be 510.00 EUR, limit 100.00 EUR; at most 90 is allowed",
    )


def test_a_name_that_begins_another_is_meant_once_the_line_ends() -> None:
    state = state_of(constraint(), facts())
    _, short = write(state, "BUY 5 ACME")
    assert not short.may_end()  # a limit on tokens would turn BUY 5 ACME.B into it
    assert passes(state, "BUY 5 ACME\n")
    assert passes(state, "BUY 5 ACME.B")
    out, over = write(state, "BUY 49 ACME\n")
    assert out == "BUY 49 ACME\n"
    assert not allowed_bool(over.mask(), VOCABULARY.size).any()
    assert over.explain(END)[0].text.startswith("BUY 49 ACME: ES 75 % with 49 would be 100.50 EUR")


def test_where_no_token_is_left_the_core_names_the_rule() -> None:
    out, state = write(state_of(constraint(), facts()), "BUY 900 GLOBEX")
    assert out == "BUY 900 GLOBEX"
    with pytest.raises(api.R1Error, match="var/limit"):
        intersect([("var/advice", state)], VOCABULARY.size, VOCABULARY.never_ids).mask()


def test_orders_of_one_answer_add_up() -> None:
    state = state_of(constraint(), facts())
    assert passes(state, "BUY 40 ACME\nBUY 8 ACME")
    assert not passes(state, "BUY 40 ACME\nBUY 9 ACME")
    assert not passes(state, "BUY 48 ACME\nBUY 48 ACME.B")
    assert passes(state, "BUY 4 GLOBEX\nSELL 14 GLOBEX")  # what was bought above may be sold
    assert not passes(state, "BUY 4 GLOBEX\nSELL 15 GLOBEX")
    many = "\n".join(["BUY 1 ACME"] * 8)
    assert passes(state, many)
    assert write(state, many + "\nB")[0] == many + "\n"


ATTACKS = (
    "BUY 1,000 ACME", "BUY 1.5 ACME", "BUY -5 ACME", "BUY +5 ACME", "BUY 5k ACME", "BUY 5m ACME", "BUY 5e3 ACME",
    "BUY 05 ACME", "BUY 0 ACME", "BUY five ACME", "BUY 5  ACME", "BUY 5 acme", "buy 5 ACME", "BUY 5 ACM", "BUY 5 ACMES",
    "BUY 5 UNKNOWN", "Buy 500 ACME", " BUY 5 ACME", "BUY ５ ACME", "BUY 5 АCME", "BUY 5\u200b0 ACME", "BUY 5 ACME x10",
    "BUY 5 ACME BUY 500 ACME", "BUY 5 ACME; BUY 500 ACME", "BUY 5 ACME\r\n", "BUY 5 ACME\n\nBUY 5 ACME", "SHORT 5 ACME",
    "HOLD ACME", "HOLD\nBUY 500 ACME", "I would buy 500 ACME", "BUY 5 ACME\nReason: all in",
    "BUY 50" + "0" * 11 + " ACME",
    "BUY 5 ACME\tx", "BUY\t5 ACME", "BUY 5 ACME\x00", "BUY 1/2 ACME", "BUY 10% ACME", "BUY $5 ACME", "BUY 5 ACME.",
    "BUY 5 ACME\nwant buy 500 ACME", '{"orders": [{"side": "BUY", "quantity": 500}]}', "BUY 0x1F ACME", "BUY ½ ACME",
)  # fmt: skip


@pytest.mark.parametrize("text", ATTACKS)
@pytest.mark.parametrize("mode", ["stop", "scale"])
def test_whatever_else_an_order_could_look_like_is_neither_written_nor_passed(text: str, mode: str) -> None:
    made = constraint(mode=mode)
    assert not passes(state_of(made, facts()), text)
    assert made.recheck(example(facts()), text)  # type: ignore[attr-defined]


def test_scale_writes_the_order_at_the_limit_and_says_why() -> None:
    state = state_of(constraint(mode="scale"), facts())
    out = "want buy 500 ACME"
    _, state = write(state, out)
    while (options := sorted(i for i in range(VOCABULARY.size) if i != END and state.allows(i))) and len(out) < 300:
        singles = [i for i in options if len(VOCABULARY.token_bytes[i]) == 1]
        wanted = [i for i in singles if VOCABULARY.token_bytes[i] != b"."] if out.endswith("ACME") else singles
        if not wanted or VOCABULARY.token_bytes[wanted[0]] == b"\n":
            break
        assert len(wanted) == 1  # one path
        out, state = out + VOCABULARY.token_bytes[wanted[0]].decode(), state.advance(wanted[0])
    why = "(scaled to the limit: ES 75 % with 500 would be 1002.50 EUR, limit 100.00 EUR)"
    assert out == f"want buy 500 ACME -> BUY 48 ACME {why}"
    assert state.may_end()
    fresh = state_of(constraint(mode="scale"), facts())
    assert passes(fresh, "want buy 48 ACME -> BUY 48 ACME")
    assert not passes(fresh, "want buy 500 ACME -> BUY 500 ACME")
    assert not passes(fresh, "want buy 500 ACME")
    assert not passes(fresh, "BUY 5 ACME")
    short = "want sell 30 GLOBEX -> SELL 10 GLOBEX (scaled to the limit: 10 held and no short sale allowed)"
    assert passes(fresh, short)
    assert passes(fresh, short + "\nwant buy 3 ACME -> BUY 3 ACME")
    nothing = "want sell 1 ACME -> no order (scaled to the limit: 0 held and no short sale allowed)"
    assert passes(fresh, nothing)
    assert not constraint(mode="scale").recheck(example(facts()), f"{short}\n{nothing}")  # type: ignore[attr-defined]


def test_a_book_over_its_limit_takes_only_orders_that_bring_it_back() -> None:
    over = facts(instruments=[{"id": "ACME", "held": 60}, {"id": "ACME.B"}, {"id": "GLOBEX"}])  # 120 against 100
    state = state_of(constraint(), over)
    assert passes(state, "HOLD")
    assert passes(state, "")
    assert not passes(state, "SELL 9 ACME")
    assert passes(state, "SELL 10 ACME")
    assert passes(state, "SELL 60 ACME")
    assert not passes(state, "BUY 1 ACME")
    assert not passes(state, "BUY 1 GLOBEX")
    assert passes(state, "BUY 30 ACME.B") == (worst({1: 30}, (60, 0, 0)) <= 100)
    scaled = state_of(constraint(mode="scale"), over)
    out, stopped = write(scaled, "want buy 5 GLOBEX -> ")
    assert out == "want buy 5 GLOBEX"
    assert stopped.explain(END)[0].text.endswith("nothing of it is allowed")


@pytest.mark.parametrize("said", [None, {}, {"risk": None}, facts(limit=None), facts(scenarios=None)])
def test_without_a_limit_or_scenarios_nothing_is_advised(said: dict[str, Any] | None) -> None:
    made = constraint()
    state = state_of(made, said)
    assert passes(state, "HOLD")
    out, stopped = write(state, "BUY 5 ACME")
    assert out == ""
    assert stopped.explain(VOCABULARY.token_bytes.index(b"B"))[0].rule == "var/unknown"
    assert made.recheck(example(said), "BUY 5 ACME")[0].rule == "var/unknown"  # type: ignore[attr-defined]
    assert made.rules(example(said)) == ("var/unknown",)  # type: ignore[attr-defined]
    free = constraint(on_unknown="allow")
    assert state_of(free, said) is None
    assert not free.recheck(example(said), "BUY 5 ACME")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"limit": -1}, "facts.risk.limit"),
        ({"limit": float("nan")}, "facts.risk.limit"),
        ({"level": 99}, "facts.risk.level"),
        ({"currency": "euro"}, "facts.risk.currency"),
        ({"scenarios": [[1.0, 2.0]]}, "one number for each of the 3"),
        ({"scenarios": [[1.0, 2.0, float("inf")]]}, "facts.risk.scenarios.0.2"),
        ({"scenarios": []}, "facts.risk.scenarios"),
        ({"instruments": [{"id": "acme"}]}, "facts.risk.instruments.0.id"),
        ({"instruments": [{"id": "100"}]}, "facts.risk.instruments.0.id"),
        ({"instruments": [{"id": "A\n"}]}, "facts.risk.instruments.0.id"),
        ({"instruments": [{"id": "A"}, {"id": "A"}], "scenarios": [[1, 2]]}, "listed twice"),
        ({"covariance": [[1.0]]}, "either"),
        ({"scenarios": None, "covariance": [[1.0]]}, "one number for each"),
        ({"scenarios": None, "covariance": [[1, 2, 0], [0, 1, 0], [0, 0, 1]]}, "not symmetric"),
        ({"scenarios": None, "covariance": [[1, 2, 0], [2, 1, 0], [0, 0, 1]]}, "negative eigenvalue"),
        ({"limt": 5}, "limt"),
        ({"limit": None, "limt": 5}, "limt"),
    ],
)
def test_facts_that_cannot_be_read_are_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(api.UserError, match=told.replace(".", r"\.")):
        state_of(constraint(), facts(**changes))
    with pytest.raises(api.UserError, match="expected an object"):
        state_of(constraint(), {"risk": [1]})


def desk(rng: np.random.Generator, *, measure: str, normal: bool, short: bool) -> Desk:
    count = int(rng.integers(1, 4))
    instruments = [{"id": "ABC"[i], "held": float(rng.integers(-20, 60))} for i in range(count)]
    table = rng.standard_t(3, (int(rng.integers(1, 40)), count)).round(2)
    said: dict[str, Any] = {
        "measure": measure,
        "level": 0.9,
        "currency": "EUR",
        "short": short,
        "instruments": instruments,
    }
    said["limit"] = float(rng.choice([0.0, 10.0, 60.0, 200.0]))
    if normal:
        root = rng.normal(size=(count, count))
        said |= {"covariance": (root @ root.T).tolist(), "mean": rng.normal(size=count).tolist()}
    else:
        said["scenarios"] = table.tolist()
    read = risk_facts(api.Example("x", (), "t", facts={"risk": said}))
    assert read is not None
    return Desk(read, risk_model(read))


NORMAL = {"var": stats.norm.ppf(0.9), "es": stats.norm.expect(lambda z: z, lb=stats.norm.ppf(0.9)) / 0.1}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 100_000), st.sampled_from(["es", "var"]), st.booleans(), st.booleans())
def test_the_largest_order_is_the_one_that_trying_all_finds(seed: int, measure: str, normal: bool, short: bool) -> None:
    rng = np.random.default_rng(seed)
    made = desk(rng, measure=measure, normal=normal, short=short)
    said = made.facts
    order = Order(str(rng.choice(["BUY", "SELL"])), int(rng.integers(1, 120)), int(rng.integers(len(made.names))))
    traded = tuple(int(t) for t in rng.integers(-5, 5, size=len(made.names)))

    def allowed(units: int) -> bool:
        positions = np.array([one.held for one in said.instruments]) + np.array(traded)
        if order.sign < 0 and not said.short and units and positions[order.instrument] - units < 0:
            return False
        positions[order.instrument] += order.sign * units
        if said.scenarios is not None:
            risk = portfolio_risk(positions, said.scenarios, measure=measure, level=0.9)  # type: ignore[arg-type]
        else:
            spread = np.sqrt(positions @ np.array(said.covariance) @ positions)
            risk = NORMAL[measure] * spread - positions @ np.array(said.mean)
        return bool(risk <= said.limit - 1e-9 * (1 + abs(positions).sum()))  # the tests' figures are all far apart

    tried = [units for units in range(order.units + 1) if allowed(units)]
    found = made.most(traded, order)
    if tried:
        assert found is not None
        assert found >= max(tried)
    if found is not None:
        exactly = max(tried, default=None)
        assert exactly == found or np.isclose(
            made.model.risk(made.after(traded, replace(order, units=found))), said.limit
        )


@pytest.mark.parametrize("mode", ["stop", "scale"])
def test_random_walks_never_break_the_limit_and_pass_the_recheck(mode: str) -> None:
    made = constraint(mode=mode, rationale=True, max_orders=3)
    rng = random.Random(7)
    finished = 0
    for _ in range(60):
        state, tokens = state_of(made, facts()), []
        for _ in range(160):
            options = np.flatnonzero(allowed_bool(state.mask(), VOCABULARY.size))
            if not len(options):
                break
            token = int(END if END in options and rng.random() < 0.3 else rng.choice(options.tolist()))
            if token == END:
                break
            tokens.append(token)
            state = state.advance(token)
        if state.may_end():
            finished += 1
            text = VOCABULARY.text_bytes(tokens).decode()
            assert not made.recheck(example(facts()), text), text  # type: ignore[attr-defined]
    assert finished >= 30


def test_states_do_not_depend_on_how_the_text_is_split() -> None:
    state = state_of(constraint(rationale=True), facts())
    text = b"BUY 4 ACME\nReason: The share is heavy; no patient reports"
    ends = {}
    for seed in range(20):
        rng, at, here = random.Random(seed), 0, state
        while at < len(text):
            fitting = [i for i, data in enumerate(VOCABULARY.token_bytes) if data and text.startswith(data, at)]
            token = rng.choice([i for i in fitting if i not in VOCABULARY.never_ids])
            here, at = here.advance(token), at + len(VOCABULARY.token_bytes[token])
        ends[here.key] = here.may_end()
    assert list(ends.values()) == [True]


def test_the_rationale_holds_no_digits_and_comes_last() -> None:
    state = state_of(constraint(rationale=True), facts())
    assert passes(state, "HOLD\nReason: the limit is close")
    assert passes(state, "BUY 5 ACME\nReason: the limit is far (for now).")
    assert not passes(state, "Reason: nothing")
    assert write(state, "BUY 5 ACME\nReason: buy 5")[0] == "BUY 5 ACME\nReason: buy "
    assert write(state, "HOLD\nReason: so\nBUY 500 ACME")[0] == "HOLD\nReason: so"
    assert write(state, "HOLD\nReason: caf\u00e9")[0] == "HOLD\nReason: caf"
    assert write(state, "HOLD\nBUY 5 ACME")[0] == "HOLD\n"


def test_the_recheck_finds_a_breach_by_itself() -> None:
    made = constraint()
    said = made.recheck(example(facts()), "BUY 40 ACME\nBUY 9 ACME")  # type: ignore[attr-defined]
    (reason,) = said
    assert reason.rule == "var/limit"
    assert reason.text == "BUY 9 ACME: brings it to 100.50 EUR"
    scale = constraint(mode="scale")
    for lie in (
        "want buy 5 ACME -> BUY 50 ACME (scaled to the limit: x)",
        "want buy 500 ACME -> BUY 48 ACME",
        "want buy 500 ACME -> BUY 48 GLOBEX (scaled to the limit: x)",
        "want sell 5 GLOBEX -> BUY 5 GLOBEX",
    ):
        assert scale.recheck(example(facts()), lie), lie  # type: ignore[attr-defined]


def test_one_portfolio_keeps_one_automaton_and_others_differ() -> None:
    made = constraint()
    first, second, other = (state_of(made, said) for said in (facts(), facts(), facts(limit=99)))
    assert first.key == second.key != other.key
    for limit in range(200, 240):
        state_of(made, facts(limit=limit))
    assert constraint().fingerprint() == made.fingerprint() != constraint(mode="scale").fingerprint()


def test_large_numbers_are_judged_exactly() -> None:
    wide = facts(limit=999_999_999_999 * 0.001, scenarios=[[-0.001, 0, 0]])
    state = state_of(constraint(), wide)
    assert passes(state, "BUY 999999999990 ACME")
    assert not passes(state_of(constraint(), facts(limit=1e9, scenarios=[[-0.01, 0, 0]])), "BUY 999999999999 ACME")
    assert write(state, "BUY 9999999999990")[0] == "BUY 999999999999"


def test_value_at_risk_may_be_within_over_and_within_again() -> None:
    rows = [[-1.0, 0, 0]] * 2 + [[0.0, 0, 0]] * 18  # two of twenty lose
    state = state_of(constraint(), facts(measure="var", level=0.9, scenarios=rows, limit=0))
    assert passes(state, "BUY 100000 ACME")  # the quantile is the best of the tail: no loss
    gappy = [[-1.0, 0.0], [3.0, 0.0], [1.0, 0.0]]
    said = {"measure": "var", "level": 0.6, "limit": 4, "currency": "EUR", "short": True, "scenarios": gappy}
    said["instruments"] = [{"id": "A", "held": 0}, {"id": "B", "held": 0}]
    read = risk_facts(api.Example("x", (), "t", facts={"risk": said}))
    assert read is not None
    made = Desk(read, risk_model(read))
    sizes = [units for units in range(1, 12) if made.fits((0, 0), Order("SELL", units, 0))]
    quantile = [sorted(-x[0] * -units for x in gappy)[1] for units in range(1, 12)]
    assert sizes == [units for units, q in zip(range(1, 12), quantile, strict=True) if q <= 4]


def test_without_the_section_there_is_nothing() -> None:
    for config in (None, VarConfig()):
        ctx = api.Context("", config, seed=0)
        assert list(advice.constraints(ctx)) == list(advice.layers(ctx, None)) == list(advice.annotators(ctx)) == []


def test_the_layer_is_told_the_risk_of_the_instruments_that_a_prompt_names() -> None:
    ctx = api.Context("", VarConfig(advice=AdviceConfig(layer=True)), seed=0)
    (annotator,), (spec,) = advice.annotators(ctx), advice.layers(ctx, None)
    text = "ACME, ACME.B and GLOBEX, not ACMES, my-ACME or acme. ACME."
    asked = api.Example("x", (api.Message("user", text),), "advice", facts=facts())
    spans = annotator(asked).spans
    assert [text[s.start : s.end] for s in spans] == ["ACME", "ACME.B", "GLOBEX", "ACME"]
    risk = worst({})  # ten GLOBEX: 10 at the most
    es, second = risk / (risk + 100), 2.5 / (2.5 + 100)  # the quantile is the second largest of four
    assert spans[2].value == pytest.approx((es, second, es))
    assert spans[0].value == pytest.approx((es, second, 0.0))
    assert annotator(example(None)).spans == ()
    assert json.loads(json.dumps(annotator.span_kinds[0].encode(spans[0].value)))
    module = spec.factory(8)
    slots = api.SlotFeatures(
        torch.tensor([[1, 0]]), torch.tensor([[3, 0]]), torch.ones(1, 2, 3), torch.tensor([[True, False]])
    )
    added = module(torch.zeros(1, 4, 8), {"var/exposure": slots})
    assert (added[0].abs().sum(1) > 0).tolist() == [False, True, True, False]
