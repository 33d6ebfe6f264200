"""A model that knows nothing, sampled hot under the constraint: whatever it writes is advice within the limit."""

from __future__ import annotations

import pytest
import torch
from r1core_var import advice
from r1core_var.advice_config import AdviceConfig
from r1core_var.config import VarConfig

from r1core import api
from r1core.decode.constraints import intersect
from r1core.decode.generate import Decoding, decode
from r1core.decode.hold import hold
from r1core.decode.prefill import prefill
from r1core.decode.vocabulary import Vocabulary
from r1core.model.layers import ExtraLayers
from r1core.testing.tiny import tiny_model, tiny_tokenizer

VOCABULARY = Vocabulary.from_tokenizer(tiny_tokenizer())
(END,) = VOCABULARY.eos_ids
INSTRUMENTS = [{"id": "ACME", "held": 40}, {"id": "AC"}, {"id": "GLOBEX"}]
RISK = {"limit": 1e9, "level": 0.9, "currency": "EUR", "instruments": INSTRUMENTS}
SCENARIOS = [[-1.0, -2.5, 1.25], [-2.0, 1.5, -0.5], [0.5, 0.75, -3.0], [1.0, 2.0, 0.5]]


def worst(text: str, mode: str) -> float:
    """The worst loss once every order in the text is done; the tail of four scenarios at 0.9 is that."""
    units = {"ACME": 40, "AC": 0, "GLOBEX": 0}
    for line in filter(None, text.split("\n")):
        order = line.partition(" -> ")[2] if mode == "scale" else line
        if order.startswith(("BUY ", "SELL ")):
            side, size, name = order.split(" ")[:3]
            units[name] += int(size) * (1 if side == "BUY" else -1)
            assert units[name] >= 0
    return max(-sum(u * p for u, p in zip(units.values(), row, strict=True)) for row in SCENARIOS)


@pytest.mark.parametrize("mode", ["stop", "scale"])
def test_no_sampled_answer_is_over_the_limit(mode: str) -> None:
    section = VarConfig(advice=AdviceConfig(mode=mode))  # type: ignore[arg-type]
    (constraint,) = advice.constraints(api.Context("", section, seed=0))
    facts = {"risk": {**RISK, "scenarios": SCENARIOS}}
    example = api.Example("x", (api.Message("user", "What now?"),), "advice", facts=facts)
    model = tiny_model()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(3.0)  # tokens that are far apart, so that digits come up
    ids, rows = tuple(tiny_tokenizer().encode("What now?")), 16
    stopped, orders = 0, 0
    for seed in range(2):
        held = hold(example, [constraint], VOCABULARY)
        states = [held.start({}) for _ in range(rows)]
        read = prefill(model, ExtraLayers(model, [], seed=0), {}, [(ids, ())] * rows)
        decoding = Decoding(max_new_tokens=120 + 100 * seed, temperature=1.5, seed=seed)
        for done in decode(model, read, decoding, {END}, states):
            text = VOCABULARY.text_bytes(done.tokens).decode()
            assert worst(text, mode) <= RISK["limit"]
            assert not held.recheck(text), text
            orders += text.count("BUY") + text.count("SELL")
            if done.finish == "dead_end":
                stopped += 1
                assert "var/limit" in done.failure
    assert orders > (0 if mode == "stop" else 2)
    assert (stopped > 0) == (mode == "stop")


def test_a_given_start_over_the_limit_is_refused() -> None:
    (constraint,) = advice.constraints(api.Context("", VarConfig(advice=AdviceConfig()), seed=0))
    example = api.Example("x", (), "advice", facts={"risk": {**RISK, "scenarios": SCENARIOS}})
    state = hold(example, [constraint], VOCABULARY).start({})
    assert state is not None
    for byte in b"BUY 900000000 GLOBEX":
        state = state.advance(VOCABULARY.token_bytes.index(bytes([byte])))
    with pytest.raises(api.R1Error, match="var/limit"):
        intersect([("var/advice", state)], VOCABULARY.size, VOCABULARY.never_ids).mask()
