"""SmolLM2-135M, dense and upcycled to R1, trained on ICD-10-CM under equal steps: held-out loss, balance, chapters.

Run: python benchmarks/r1_training.py [--device cuda] [--steps 240] [--seeds 3] [--model DIR] [--text FILE.npz]
Every arm gets the same rows in the same order, the same optimiser and a grid of as many learning rates, chosen on the
validation part; the test part (categories never seen) is asked of the chosen ones only. Differences are paired by
document, so their standard error is one over documents. Behind an R1's last step come passes over training text that
only move its biases (`--balance-passes`). Then routing: the spread of tokens over experts in each layer, on all that is
held out, before these passes and behind them, and on the test part alone; there, too, what an expert knows of a token's
chapter, and what it costs to switch a chapter's experts off. Needs a GPU: about six minutes of an H100.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import r1_routes as routes
import torch
from r1_arms import ROUTER, Arm, built, operations, source
from r1_icd import CHAPTERS, Part, parts
from r1_steps import balanced, token_losses, trained
from record import RESULTS, machine, write
from transformers import PreTrainedModel

from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.active import use_experts
from r1core.model.r1.config import R1Config

RATES = (5e-5, 1e-4, 2e-4, 4e-4)
NEW_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
SWITCHED = 16
"""Experts of each layer that are switched off for a chapter, of 128."""
SWEEP = ((0.01, 0.005), (0.01, 0.06), (1.0, 0.02))
"""Weights of the balance loss and steps of the biases that are tried besides."""
FEWEST = 20
"""Test documents of a chapter whose experts are switched off."""
EVEN = 0.12


@dataclass(frozen=True)
class Ran:
    """What a run gave: losses of each token of both held-out parts, seconds of a step, sizes; spread of each layer, on
    both parts, before the passes that balance, and on the test part.
    """

    val: npt.NDArray[np.float64]
    test: npt.NDArray[np.float64]
    step: float
    spreads: list[float]
    uneven: list[float]
    test_spreads: list[float]
    parameters: int
    operations: int

    @property
    def validation(self) -> float:
        """Mean loss of the validation part, nats a token."""
        return float(self.val.mean())


class Bench:
    """The dense model, the text and the settings that all arms share."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.device, self.name, self.record = torch.device(chosen.device), chosen.name, chosen.record
        self.steps, self.batch, self.length = chosen.steps, chosen.rows, chosen.length
        self.passes = chosen.balance_passes
        self.dense = source(chosen.model, self.device)
        tokenizer = Path(self.dense.config._name_or_path) / "tokenizer.json"
        self.parts = parts(chosen.text, tokenizer, end=int(self.dense.config.eos_token_id))
        self.ran: dict[tuple[Arm, int, int | None], Ran] = {}
        self.best_r1: tuple[R1ForCausalLM, Ran] | None = None
        most = None if chosen.held is None else chosen.held // self.length
        self.held = {
            name: (rows[:most], documents[:most])
            for name in ("val", "test")
            for rows, documents in [self.parts[name].rows(self.length, seed=0)]
        }

    def run(self, arm: Arm, seed: int = 0, steps: int | None = None) -> Ran:
        """An arm's run, done once; of R1s the model of the lowest validation loss is kept."""
        key = (arm, seed, steps)
        if key in self.ran:
            return self.ran[key]
        torch.manual_seed(seed)
        model, groups = built(arm, self.dense, seed, self.device)
        batches = self.parts["train"].batches(self.batch, self.length, seed)
        seconds = trained(model, groups, batches, steps or self.steps, name=str(arm), record=self.record)
        spreads = uneven = test_spreads = []
        if isinstance(model, R1ForCausalLM) and arm.kind == "r1":
            uneven, _ = spread_of(self, model)
            balanced(model, batches, self.passes)
            spreads, test_spreads = spread_of(self, model)
        sizes = sum(weight.numel() for weight in model.parameters()), operations(model)
        losses = self.losses(model, "val"), self.losses(model, "test")
        ran = Ran(*losses, seconds, spreads, uneven, test_spreads, *sizes)
        if spreads and steps is None and (self.best_r1 is None or ran.validation < self.best_r1[1].validation):
            self.best_r1 = (model, ran)
        self.ran[key] = ran
        said = "".join(
            f", spread {what} {max(found):.3f} at most, {np.mean(found):.3f} on average"
            for what, found in (("before", uneven), ("after", spreads), ("of test", test_spreads))
            if found
        )
        print(f"{arm}, seed {seed}: validation {ran.validation:.4f}, {1000 * seconds:.0f} ms a step{said}", flush=True)
        return ran

    def losses(self, model: PreTrainedModel, part: str) -> npt.NDArray[np.float64]:
        """Loss of each token of a held-out part, (R, T - 1), nats."""
        return token_losses(model, self.held[part][0], self.batch)

    def best(self, arms: Sequence[Arm]) -> Arm:
        """The arm with the lowest validation loss."""
        return min(arms, key=lambda arm: self.run(arm).validation)


def paired(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64], documents: npt.NDArray[np.int64],
           number: int) -> tuple[float, float]:  # fmt: skip
    """Mean difference a token, nats, and its standard error over documents (a ratio's, by its residuals)."""
    at = documents[:, 1:].ravel()
    apart = np.bincount(at, (ours - theirs).ravel(), number)
    tokens = np.bincount(at, minlength=number).astype(float)
    mean = apart.sum() / tokens.sum()
    left = (apart - mean * tokens)[tokens > 0]
    return float(mean), float(math.sqrt(np.square(left).sum() * len(left) / (len(left) - 1)) / tokens.sum())


def switched_off(
    bench: Bench, model: R1ForCausalLM, joint: routes.Counts, only: Sequence[int]
) -> list[dict[str, float]]:
    """What it costs, in nats a test token, to switch off a chapter's favourite experts: itself and the others."""
    _, documents = bench.held["test"]
    chapters = bench.parts["test"].chapters[documents[:, 1:]]
    before, found = bench.losses(model, "test"), []
    for chapter in only or range(1, CHAPTERS + 1):
        if (bench.parts["test"].chapters == chapter).sum() < FEWEST:
            continue
        use_experts(model, routes.without_favourites(joint, chapter, SWITCHED))
        rise = bench.losses(model, "test") - before
        own = chapters == chapter
        found.append({"chapter": chapter, "own": float(rise[own].mean()), "others": float(rise[~own].mean())})
        use_experts(model, torch.ones(model.config.num_experts, dtype=torch.bool))
    return found


def counted(bench: Bench, model: R1ForCausalLM, part: str) -> tuple[npt.NDArray[np.int16], routes.Counts]:
    """Experts of each token of a part, (L, N, K), and how often each document's went to each, (L, D, E)."""
    rows, documents = bench.held[part]
    chosen = routes.routed(model, rows, bench.batch)
    return chosen, routes.by_document(chosen, documents, len(bench.parts[part].ends), model.config.num_experts)


def spread_of(bench: Bench, model: R1ForCausalLM) -> tuple[list[float], list[float]]:
    """Spread of each layer on both held-out parts together, and on the test part."""
    chosen = [counted(bench, model, part)[0] for part in ("val", "test")]
    experts = model.config.num_experts
    return routes.spreads(np.concatenate(chosen, axis=1), experts), routes.spreads(chosen[1], experts)


def knowledge(bench: Bench, model: R1ForCausalLM) -> dict[str, Any]:
    """Balance and mutual information of every layer on the test part, and each chapter's experts."""
    chosen, counts = counted(bench, model, "test")
    part: Part = bench.parts["test"]
    joint = routes.by_chapter(counts, part.chapters, CHAPTERS)
    chance = routes.by_chance(counts, part.chapters, CHAPTERS)
    bits = routes.information(joint)
    layer = int(np.argmax(bits - chance.mean(0)))
    top = {chapter: routes.top_experts(joint, layer, chapter) for chapter in sorted(set(part.chapters.tolist()))}
    return {
        "tokens": chosen.shape[1],
        "spread": routes.spreads(chosen, model.config.num_experts),
        "spread_16384": routes.spreads(chosen[:, :16_384], model.config.num_experts),
        "bits": bits.tolist(),
        "bits_by_chance": chance.mean(0).tolist(),
        "bits_by_chance_most": chance.max(0).tolist(),
        "layer": layer,
        "top": top,
    }


def compared(bench: Bench, arms: Sequence[Arm], seeds: int) -> dict[str, dict[str, Any]]:
    """Test losses of the chosen arms for each seed, and differences from the dense arm."""
    number, documents = len(bench.parts["test"].ends), bench.held["test"][1]
    runs = {arm: [bench.run(arm, seed) for seed in range(seeds)] for arm in arms}
    theirs = np.mean([ran.test for ran in runs[arms[0]]], 0)
    found: dict[str, dict[str, Any]] = {}
    for arm, ran in runs.items():
        apart = paired(np.mean([each.test for each in ran], 0), theirs, documents, number)
        found[arm.kind] = {
            "arm": str(arm),
            "losses": [float(each.test.mean()) for each in ran],
            "apart": apart,
            "parameters": ran[0].parameters,
            "operations": ran[0].operations,
            "step": ran[0].step,
            "spreads": [each.spreads for each in ran],
            "uneven": [each.uneven for each in ran],
            "test_spreads": [each.test_spreads for each in ran],
        }
        print(found[arm.kind], flush=True)
    return found


def figures(found: dict[str, dict[str, Any]], seen: dict[str, Any], cost: list[dict[str, float]],
            start: dict[str, float], held: int, device: str) -> list[dict[str, Any]]:  # fmt: skip
    """Rows of the results file."""
    where = {"target": None, "met": None, "peer": None, "machine": device}
    dense = float(np.mean(found["dense"]["losses"]))
    table: list[dict[str, Any]] = [
        {**where, "figure": "held-out loss before training", "value": round(start["test"], 4), "unit": "nats/token"}
    ]
    for kind, arm in found.items():
        mean, (apart, error) = float(np.mean(arm["losses"])), arm["apart"]
        size = f"{arm['parameters'] / 1e6:.3g}M parameters, {arm['operations'] / 1e6:.3g}M multiply-adds a token"
        label = f"held-out loss, {arm['arm']}; {size}, {1000 * arm['step']:.0f} ms a step"
        apart_said = "" if kind == "dense" else f"; {apart:+.4f} from dense, standard error {error:.4f}"
        aim = {"target": round(dense, 4), "met": mean < dense} if kind == "r1" else {}
        table.append({**where, "figure": label + apart_said, "value": round(mean, 4), "unit": "nats/token",
                      "peer": None if kind == "dense" else round(dense, 4), **aim})  # fmt: skip
    worst, uneven, of_test = (
        max(max(each) for each in found["r1"][name])  # of all seeds
        for name in ("spreads", "uneven", "test_spreads")
    )
    bits, chance = np.array(seen["bits"]), np.array(seen["bits_by_chance"])
    own, others = (float(np.mean([row[name] for row in cost])) for name in ("own", "others"))
    return [
        *table,
        {**where, "figure": f"tokens per expert, std/mean, worst layer and seed, {held} held-out tokens of both parts"
         " (peer: before the passes that balance)", "value": round(worst, 4), "unit": "", "target": EVEN,
         "met": worst <= EVEN, "peer": round(uneven, 4)},
        {**where, "figure": f"the same, {seen['tokens']} tokens of the test part", "value": round(of_test, 4),
         "unit": "", "target": EVEN, "met": of_test <= EVEN},
        {**where, "figure": "the same, first 16384 of them", "value": round(max(seen["spread_16384"]), 4), "unit": "",
         "peer": round(of_test, 4)},
        {**where, "figure": "chapter and expert, mutual information, mean over layers (peer: by chance)",
         "value": round(float(bits.mean()), 4), "unit": "bits", "peer": round(float(chance.mean()), 4)},
        {**where, "figure": "the same before training", "value": round(start["bits"], 4), "unit": "bits",
         "peer": round(start["chance"], 4)},
        {**where, "figure": f"{SWITCHED} favourite experts of a chapter off in each layer: rise of its own loss"
         " (peer: of the other chapters'), mean over chapters", "value": round(own, 4), "unit": "nats/token",
         "peer": round(others, 4)},
    ]  # fmt: skip


def shown(seen: dict[str, Any]) -> None:
    """Print every layer, and each chapter's experts in the layer that knows most."""
    print("layer  spread  bits  by chance")
    for layer, row in enumerate(zip(seen["spread"], seen["bits"], seen["bits_by_chance"], strict=True)):
        print(f"{layer:5}  {row[0]:.4f}  {row[1]:.4f}  {row[2]:.4f}")
    print(f"chapter: its three first experts in layer {seen['layer']}, share of its tokens (of all tokens)")
    for chapter, experts in seen["top"].items():
        print(f"{chapter:7}: " + ", ".join(f"{e} {100 * own:.1f} % ({100 * of:.1f})" for e, own, of in experts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--rows", type=int, default=16, help="of a batch")
    parser.add_argument("--length", type=int, default=512, help="tokens of a row")
    parser.add_argument("--held", type=int, help="tokens of each held-out part at most, for a CPU")
    parser.add_argument("--chapters", type=int, nargs="*", default=(), help="whose experts are switched off; all")
    parser.add_argument("--name", default="r1_training", help="of the results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", type=Path, help="directory of a dense Llama")
    parser.add_argument("--text", type=Path, default=Path("runs/r1_icd.npz"), help="made where it is not there")
    parser.add_argument("--balance", type=float, default=R1Config.router_aux_loss_coef)
    parser.add_argument("--balance-passes", type=int, default=300, help="behind an R1's last step")
    parser.add_argument("--bias-rate", type=float, default=R1Config.router_bias_rate)
    parser.add_argument("--router-rate", type=float, default=ROUTER, help="learning rate of routers")
    parser.add_argument("--record", action="store_true", help="record a pass as a CUDA graph and replay it")
    parser.add_argument("--sweep", action="store_true", help="try several weights of the balance loss, too")
    parser.add_argument("--twin", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--new-rates", type=float, nargs="+", default=NEW_RATES)
    chosen = parser.parse_args()
    bench = Bench(chosen)
    print({name: (len(part.ends), len(part.ids)) for name, part in bench.parts.items()}, flush=True)
    start = untrained(bench)
    detail: dict[str, Any] = {"steps": chosen.steps, "before": start}
    dense = bench.best([Arm("dense", rate) for rate in chosen.rates])
    keep(bench, detail)
    routing = {"balance": chosen.balance, "bias_rate": chosen.bias_rate, "router": chosen.router_rate}
    r1 = bench.best([Arm("r1", dense.rate, rate, **routing) for rate in chosen.new_rates])
    keep(bench, detail)
    found = compared(bench, [dense, r1], chosen.seeds)
    assert bench.best_r1 is not None
    model = bench.best_r1[0]
    seen = knowledge(bench, model)
    shown(seen)
    keep(bench, detail, test=found, routing=seen)
    _, counts = counted(bench, model, "val")
    cost = switched_off(bench, model, routes.by_chapter(counts, bench.parts["val"].chapters, CHAPTERS), chosen.chapters)
    keep(bench, detail, switched_off=cost)
    held = sum(rows.size for rows, _ in bench.held.values())
    device = torch.cuda.get_device_name() if bench.device.type == "cuda" else machine()
    write(chosen.name, figures(found, seen, cost, start, held, device))
    if chosen.sweep:
        for balance, bias_rate in SWEEP:
            bench.run(Arm("r1", dense.rate, r1.new, balance, bias_rate, chosen.router_rate))
        keep(bench, detail)
    if chosen.twin:
        twin = bench.best([Arm("twin", dense.rate, rate) for rate in chosen.new_rates])
        found = compared(bench, [dense, r1, twin], chosen.seeds)
        keep(bench, detail, test=found)
        write(chosen.name, figures(found, seen, cost, start, held, device))


def keep(bench: Bench, detail: dict[str, Any], **found: Any) -> None:
    """Write what is found so far, so that a run that is cut off leaves it."""
    runs = {
        f"{arm}, seed {seed}": {
            "validation": ran.validation,
            "step": ran.step,
            "spreads": ran.spreads,
            "uneven": ran.uneven,
        }
        for (arm, seed, _), ran in bench.ran.items()
    }
    detail.update(found, runs=runs)
    (RESULTS / f"{bench.name}_detail.json").write_text(json.dumps(detail, indent=1) + "\n", encoding="utf-8")


def untrained(bench: Bench) -> dict[str, float]:
    """Held-out loss of the dense model, and what the upcycled one's random routers tell of chapters."""
    model, _ = built(Arm("r1", 0.0, 0.0), bench.dense, 0, bench.device)
    seen = knowledge(bench, model)
    loss = float(bench.losses(model, "test").mean())
    print(f"before training: test {loss:.4f}, spread at most {max(seen['spread']):.2f}", flush=True)
    return {"test": loss, "bits": float(np.mean(seen["bits"])), "chance": float(np.mean(seen["bits_by_chance"]))}


if __name__ == "__main__":
    main()
