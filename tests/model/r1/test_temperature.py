"""The temperature of the routers: where a schedule stands, what is refused, and what a saved model routes by."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from r1core.api import UserError
from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.temperature import Temperature
from r1core.testing.tiny_r1 import config, model, tokens

FALLING = {"start": 2.0, "end": 0.5}


@pytest.mark.parametrize(
    ("given", "progress", "tau"),
    [
        ({"shape": "linear"}, 0.0, 2.0),
        ({"shape": "linear"}, 1 / 3, 1.5),
        ({"shape": "linear", "share": 0.5}, 0.25, 1.25),
        ({"shape": "linear", "share": 0.5}, 0.9, 0.5),
        ({}, 0.5, 1.25),
        ({}, 1 / 3, 0.5 + 1.5 * (1 + math.cos(math.pi / 3)) / 2),
        ({}, 1.0, 0.5),
    ],
)
def test_tau_by_the_share_of_the_steps(given: dict[str, Any], progress: float, tau: float) -> None:
    assert Temperature(**FALLING, **given).at(progress) == pytest.approx(tau, abs=1e-12)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (-0.5, "router_temperature = -0.5: it has to be above 0"),
        (float("nan"), "router_temperature = nan: it has to be above 0"),
        (float("inf"), "router_temperature = inf: give 0.001 to 1000"),
        (1e-7, "router_temperature = 1e-07: give 0.001 to 1000"),
        ({"start": 2.0}, "router_temperature.end is missing: a schedule goes from start to end"),
        ({**FALLING, "steps": 7}, "router_temperature.steps: there is no such key; give start, end, shape, share"),
        ({**FALLING, "shape": "step"}, "router_temperature.shape = 'step': give cosine or linear"),
        ({**FALLING, "share": 0}, "router_temperature.share = 0: give a share, above 0 and up to 1"),
        ({**FALLING, "share": 1.5}, "router_temperature.share = 1.5"),
        ({"start": 0.0, "end": 0.5}, "router_temperature.start = 0.0: it has to be above 0"),
        ({"start": 2.0, "end": "low"}, "router_temperature.end = 'low': give a number"),
    ],
)
def test_a_configuration_refuses_what_is_no_temperature(given: Any, said: str) -> None:
    with pytest.raises(Exception, match=said):
        config(router_temperature=given)


def test_a_saved_model_routes_by_the_tau_it_ended_with(tmp_path: Path) -> None:
    made, fixed = (model(router_temperature=tau) for tau in ({**FALLING, "shape": "linear"}, 1.5))
    ids = tokens(2, 20)
    made.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.router_temperature == {**FALLING, "shape": "linear"}
    made.begin()
    at_start = made(ids).logits
    made.after_step(1 / 3)
    assert torch.equal(made(ids).logits, fixed(ids).logits)
    assert not torch.equal(made(ids).logits, at_start)
    made.save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    assert stated["router_temperature"] == 1.5
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids).logits, fixed(ids).logits)
    made.after_step(1.0)
    assert made.routers()[0].temperature == 0.5, "saving ended no schedule"
    (tmp_path / "config.json").write_text(json.dumps({**stated, "router_temperature": 2}))
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids).logits, at_start)


def test_no_cast_rounds_it() -> None:
    made = R1ForCausalLM(config(router_temperature=0.7)).bfloat16().float()
    assert made.routers()[1].temperature == 0.7


def test_a_schedule_needs_routers_that_are_trained() -> None:
    made = model(router_temperature=FALLING)
    made.routers()[1].requires_grad_(False)
    with pytest.raises(UserError, match=r"moves from 2.0 to 0.5, and 1 of 2 routers are frozen") as refused:
        made.begin()
    assert refused.value.fix is not None
    assert "one temperature" in refused.value.fix


def test_routers_that_differ_are_not_saved_as_one(tmp_path: Path) -> None:
    made = model()
    made.routers()[1].set_temperature(0.6)
    with pytest.raises(ValueError, match=r"temperatures 0.5 to 0.6: a configuration states one"):
        made.save_pretrained(tmp_path)
