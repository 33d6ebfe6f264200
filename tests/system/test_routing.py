"""A run of an R1 whose routers are trained: their temperature, and where the report says that tokens go."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from r1core.data import codec
from r1core.decode.session import Session
from r1core.model.probe import Compute
from r1core.selection import Selection
from r1core.workbench import open_bench

from .conftest import COMPLAINTS, RECIPE, Desk
from .test_launcher import Launched

SMALL = ("--to", "R1", "--out", "moe", "--experts", "8", "--groups", "4", "--width", "8")
WHOLE = 'shallow_feed_forward.mode = "full"\nmiddle_feed_forward.mode = "full"\n'
FALLING = "\n[train.router_temperature]\nstart = 2.0\nend = 0.8\n"


def recount(desk: Desk) -> Counter[tuple[int, str, int]]:
    """Tokens by layer, label and expert: every test row read alone by the run's model."""
    bench = open_bench(Selection(recipe=desk.folder / "own.toml", run=desk.folder / "runs/own"))
    session = Session(bench, Compute("cpu", "fp32", 1, 0.0), adapted=True)
    found: Counter[tuple[int, str, int]] = Counter()
    blocks = session.model.get_base_model().feed_forwards()
    for example in codec.read(bench.run.split("test"), bench.chain.kinds):
        row = session.renderer.encode(example)
        chosen: list[torch.Tensor] = []

        def note(*given: Any, chosen: list[torch.Tensor] = chosen) -> None:
            chosen.append(given[-1].experts)

        hooks = [block.router.register_forward_hook(note) for block in blocks]
        with torch.no_grad():
            session.model(torch.tensor([[*row.prompt, *row.response[:-1]]]))
        for hook in hooks:
            hook.remove()
        for layer, experts in enumerate(chosen):
            found.update((layer, example.messages[-1].content, expert) for expert in experts.flatten().tolist())
    return found


@pytest.mark.slow
def test_a_run_tells_where_tokens_go_and_keeps_the_temperature_it_ended_with(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk("models", "upcycle", "tiny", *SMALL)
    recipe = RECIPE.replace('path = "tiny"', 'path = "moe"') + f"\n[strategy]\n{WHOLE}{FALLING}"
    desk.write("own.toml", recipe)
    quick = ("--set", "train.steps=4", "--set", "train.learning_rate=1e-2", "--set", "train.balance_passes=3")
    desk("adapt", "--recipe", "own.toml", *quick)
    found = json.loads((desk.folder / "runs/own/evaluation/routing.json").read_text())
    assert (found["by"], found["domains"]) == ("label", sorted(COMPLAINTS))
    told = {
        (layer, domain, expert): count
        for layer, table in enumerate(found["counts"])
        for domain, line in zip(found["domains"], table, strict=True)
        for expert, count in enumerate(line)
        if count
    }
    monkeypatch.chdir(desk.folder)
    assert told == recount(desk)
    page = (desk.folder / "runs/own/report.html").read_text()
    assert page.count('aria-label="Expert groups of layer') == len(found["counts"])
    assert f"Each of {found['tokens']:,} tokens" in page
    desk("report", "runs/own", "--redact")
    assert 'aria-label="Expert groups of layer 0' in (desk.folder / "runs/own/report-redacted.html").read_text()
    desk("merge", "runs/own", "--out", "merged")
    assert json.loads((desk.folder / "merged/config.json").read_text())["router_temperature"] == 0.8


def test_what_wants_routers_is_refused_where_none_is_trained(desk: Desk) -> None:
    desk.write("own.toml", RECIPE + FALLING)
    refused = desk("check", "--recipe", "own.toml", code=2).said
    assert "train.router_temperature, and no router is trained" in refused
    desk.write("own.toml", RECIPE + f"\n[strategy]\n{WHOLE}{FALLING}")
    assert re.search(r"has no routers of R1's", desk("train", "--recipe", "own.toml", code=2).said)
    passes = RECIPE.replace("[train]", "[train]\nbalance_passes = 2")
    desk.write("own.toml", passes)
    assert "train.balance_passes, and no router is trained" in desk("check", "--recipe", "own.toml", code=2).said
    desk.write("own.toml", passes + f"\n[strategy]\n{WHOLE}")
    for verb in ("check", "train"):
        assert re.search(r"has no routers of R1's", desk(verb, "--recipe", "own.toml", code=2).said)
    desk.write("own.toml", RECIPE + FALLING.replace("0.8", "0"))
    assert "train.router_temperature.end" in desk("check", "--recipe", "own.toml", code=2).said


@pytest.mark.slow
def test_routers_cut_over_two_launched_processes_end_where_one_does(desk: Desk) -> None:
    desk("models", "upcycle", "tiny", *SMALL)
    recipe = RECIPE.replace('path = "tiny"', 'path = "moe"') + f"\n[strategy]\n{WHOLE}{FALLING}"
    desk.write("own.toml", recipe.replace("[train]", '[train]\npacking = "none"\nsteps = 13\nbalance_passes = 3'))
    desk("train", "--recipe", "own.toml", "--run", "runs/alone")
    done = Launched(desk.folder)("train", "--recipe", "own.toml", "--set", "train.parallel=fsdp2", code=None)
    assert done.code == 0, done.said
    one, two = (load_file(desk.folder / f"runs/{run}/adapter/adapter_model.safetensors") for run in ("alone", "own"))
    assert one.keys() == two.keys()
    exact = [name for name in one if name.endswith(("bias_steps", "tau"))]
    assert {int(one[name]) for name in exact if name.endswith("tau")} == {800_000}
    assert all(torch.equal(one[name], two[name]) for name in exact)
    assert all(torch.allclose(one[name].float(), two[name].float(), rtol=0, atol=2e-4) for name in one)
