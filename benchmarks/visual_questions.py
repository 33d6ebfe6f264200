"""Questions on rendered scenes: image fusion against its seed form, prefix tokens and the text alone.

    python benchmarks/visual_questions.py --device cuda --record     # the figures: 3 seeds, 12 trainings
    python benchmarks/visual_questions.py --device cuda --record --seeds 0 --runs runs.jsonl   # a part of them; go on
    python benchmarks/visual_questions.py --device cuda --record --split val --seeds 0 --arms fusion prefix   # settings

Four arms answer the same questions with one small causal language model (Llama, 4 blocks of width 128, built here) and
one small ViT (2 blocks of width 96, 16 patches and a class token). No pretrained weights are needed: tower and language
model are trained along with the task, from the same start, in every arm, on the same rows in the same order.

    text     the language model alone
    prefix   the tower's features through a two-layer map of width 768, as tokens before the question (the simple way)
    seed     fusion layers in the mode `softmax(T I^T / sqrt(768)) I + T`
    fusion   fusion layers with queries, keys and values of their own, gates and weighting

Questions of `test` are about combinations of shape, colour and relation that training has none of (`scenes.py`); the
settings were chosen on `val`, other combinations. A standard error is over seeds; each seed has combinations, questions
and weights of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import record
import scenes
import torch
from recorded import Recorded
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTModel

from r1core.api import SlotFeatures
from r1core.data.images import IMAGE
from r1core.model.fusion.attach import fusion_specs
from r1core.model.fusion.places import Grid, codes
from r1core.model.fusion.sight import Sight
from r1core.model.fusion.tower import Tower
from r1core.model.layers import ExtraLayers
from r1core.recipe.vision import WIDTH

ARMS = ("text", "prefix", "seed", "fusion")
TARGET = 18.7  # points over the text alone
HIDDEN, TOWER, BLOCKS = 128, 96, 4


@dataclass(frozen=True)
class Plan:
    """What one training is: arm, seed and the settings that all arms share."""

    arm: str
    seed: int
    split: str
    device: str
    steps: int
    batch: int
    rate: float
    rows: int
    asked: int
    tower: int
    record: bool
    sites: tuple[str, ...]


class Prefix(nn.Module):
    """The simple way: features of the image, mapped to the model's width, stand before the embedded question."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower
        self.map = nn.Sequential(
            nn.LayerNorm(tower.width), nn.Linear(tower.width, WIDTH), nn.GELU(), nn.Linear(WIDTH, HIDDEN)
        )

    def forward(self, model: LlamaForCausalLM, pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Logits of the answer, (N, V)."""
        before = self.map(self.tower(pixels))
        embedded = torch.cat([before, model.get_input_embeddings()(tokens)], 1)
        there = torch.cat([tokens.new_ones(before.shape[:2]), tokens != 0], 1)
        return model(inputs_embeds=embedded, attention_mask=there, logits_to_keep=1).logits[:, -1]


class Answerer:
    """One arm: the language model, what brings it the image, and how they answer."""

    def __init__(self, plan: Plan) -> None:
        torch.manual_seed(plan.seed)
        self.arm, self.device = plan.arm, torch.device(plan.device)
        config = LlamaConfig(
            vocab_size=len(scenes.VOCABULARY), hidden_size=HIDDEN, intermediate_size=3 * HIDDEN,
            num_hidden_layers=BLOCKS, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64,
            tie_word_embeddings=True, initializer_range=HIDDEN**-0.5,
        )  # fmt: skip
        self.model = LlamaForCausalLM(config).to(self.device)
        encoder = ViTModel(
            ViTConfig(
                hidden_size=TOWER, num_hidden_layers=plan.tower, num_attention_heads=4, intermediate_size=2 * TOWER,
                image_size=scenes.SIZE, patch_size=scenes.CELL, initializer_range=TOWER**-0.5,
            ),
            add_pooling_layer=False,
        )  # fmt: skip
        with torch.no_grad():
            encoder.embeddings.position_embeddings[0] = codes(Grid(1, scenes.GRID, scenes.GRID), TOWER)
        self.tower = Tower(encoder, (scenes.SIZE, scenes.SIZE)).to(self.device)
        self.shown = torch.zeros(1, scenes.SIZE, scenes.SIZE, 3, dtype=torch.uint8, device=self.device)
        self.prefix = Prefix(self.tower).to(self.device) if plan.arm == "prefix" else None
        specs = []
        if plan.arm in ("seed", "fusion"):
            sight = Sight(self.tower, self.pixels, trained=True)
            specs = fusion_specs(lambda: sight, plan.sites, plan.arm, trained=True)
        self.layers = ExtraLayers(self.model, specs, plan.seed)

    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained."""
        modules = [self.model, self.layers, *([self.prefix] if self.prefix is not None else [])]
        return [parameter for module in modules for parameter in module.parameters()]

    def pixels(self, numbers: Sequence[int]) -> torch.Tensor:
        """The images that are shown, (N, 3, 32, 32) in [-1, 1]; they are numbered as they come."""
        assert len(numbers) == len(self.shown)
        return self.shown.permute(0, 3, 1, 2).float() / 127.5 - 1

    def __call__(self, tokens: torch.Tensor, images: torch.Tensor, slots: SlotFeatures | None = None) -> torch.Tensor:
        """Logits of the answers, (N, V), to questions (N, LENGTH) about images (N, 32, 32, 3), one each.

        Parameters
        ----------
        slots : `one_each(N)`, for a pass that is recorded; new ones else, as what is shown belongs to its slots.
        """
        self.shown = images
        if self.prefix is not None:
            return self.prefix(self.model, self.pixels(range(len(images))), tokens)
        features = None if self.arm == "text" else {IMAGE.name: slots or one_each(len(tokens))}
        with self.layers.using(features):
            return self.model(input_ids=tokens, attention_mask=tokens != 0, logits_to_keep=1).logits[:, -1]


def one_each(rows: int) -> SlotFeatures:
    """One image a row, by its place in the batch, seen by the whole row."""
    start = torch.zeros(rows, 1, dtype=torch.int64)
    values = torch.arange(rows, dtype=torch.float32)[:, None, None]
    return SlotFeatures(start, start + scenes.LENGTH, values, torch.ones(rows, 1, dtype=torch.bool))


class Backward:
    """Loss and gradients of a batch of questions; with `record`, as a recorded pass."""

    def __init__(self, arm: Answerer, data: scenes.Questions, batch: int, *, record: bool) -> None:
        self.arm, self.slots = arm, one_each(batch)
        given = (data.tokens, data.images, data.answers)
        self.tokens, self.images, self.answers = (torch.from_numpy(each).to(arm.device) for each in given)
        self.rows = torch.zeros(batch, dtype=torch.int64, device=arm.device)
        self.recorded = Recorded(self._run, arm.parameters()) if record else None

    def __call__(self, rows: np.ndarray) -> torch.Tensor:
        """The mean loss, (); the gradients stand in the parameters, in place of those before."""
        self.rows.copy_(torch.from_numpy(rows))
        if self.recorded is not None:
            return self.recorded()
        for parameter in self.arm.parameters():
            parameter.grad = None
        return self._run()

    def _run(self) -> torch.Tensor:
        loss = cross_entropy(
            self.arm(self.tokens[self.rows], self.images[self.rows], self.slots), self.answers[self.rows]
        )
        loss.backward()
        return loss.detach()


def train_and_ask(plan: Plan) -> dict[str, float]:
    """Accuracy in all and by kind on the split's combinations, and what it took."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    data = scenes.questions("train", plan.rows, plan.seed)
    asked = scenes.questions(plan.split, plan.asked, plan.seed)
    arm = Answerer(plan)
    begun = time.perf_counter()
    backward = Backward(arm, data, plan.batch, record=plan.record)
    optimizer = torch.optim.AdamW(_groups(arm.parameters(), plan.rate), weight_decay=0.01, fused=True)
    warm = max(1, plan.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min(1, (n + 1) / warm) * (0.5 + 0.5 * math.cos(math.pi * n / plan.steps))
    )
    draw = np.random.default_rng([plan.seed, 5])
    for step in range(plan.steps):
        loss = backward(draw.integers(plan.rows, size=plan.batch))
        nn.utils.clip_grad_norm_(arm.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % max(1, plan.steps // 4) == 0:
            print(f"  {plan.arm} seed {plan.seed}: step {step + 1}, loss {loss.item():.3f}", flush=True)
    seconds = time.perf_counter() - begun
    found = _accuracy(arm, asked)
    weights = sum(p.numel() for p in arm.parameters())
    return found | {"seconds": seconds, "weights": float(weights)}


def _groups(parameters: Sequence[nn.Parameter], rate: float) -> list[dict[str, object]]:
    """A matrix of more inputs than the model is wide learns slower by that factor (Yang et al. 2022, table 8)."""
    by_rate: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        inputs = parameter.shape[1] if parameter.ndim == 2 else 0
        by_rate.setdefault(rate * min(1.0, HIDDEN / max(1, inputs)), []).append(parameter)
    return [{"params": group, "lr": each} for each, group in by_rate.items()]


@torch.no_grad()
def _accuracy(arm: Answerer, asked: scenes.Questions) -> dict[str, float]:
    right = np.zeros(len(asked.answers), bool)
    for first in range(0, len(right), 500):
        part = slice(first, first + 500)
        tokens, images = (torch.from_numpy(each[part]).to(arm.device) for each in (asked.tokens, asked.images))
        logits = arm(tokens, images)
        right[part] = logits.argmax(-1).cpu().numpy() == asked.answers[part]
    return {"all": float(right.mean())} | {kind: float(right[asked.kinds == kind].mean()) for kind in scenes.ANSWERS}


def _table(found: dict[tuple[str, int], dict[str, float]], arms: Sequence[str], seeds: Sequence[int]) -> None:
    for arm in arms:
        cells = []
        for what in ("all", *scenes.ANSWERS):
            mean, error = _mean([100 * found[arm, seed][what] for seed in seeds])
            cells.append(f"{what} {mean:.1f} ± {error:.1f}")
        seconds = statistics.median(found[arm, seed]["seconds"] for seed in seeds)
        print(f"{arm:8} {', '.join(cells)}; {seconds:.0f} s, {found[arm, seeds[0]]['weights']:,.0f} weights")


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error."""
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def _rows(found: dict[tuple[str, int], dict[str, float]], seeds: Sequence[int], device: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    where = (
        f"{torch.cuda.get_device_name()}, Python {platform.python_version()}" if device == "cuda" else record.machine()
    )

    def add(
        figure: str, values: Sequence[float], unit: str, target: float | None = None, peer: str | None = None
    ) -> None:
        mean, error = _mean(values)
        met = None if target is None else mean >= target
        rows.append({"figure": f"visual questions, held-out combinations: {figure}", "value": round(mean, 1),
                     "unit": f"{unit} (± {error:.1f}, {len(seeds)} seeds)", "target": target, "met": met, "peer": peer,
                     "machine": where})  # fmt: skip

    def gain(over: str) -> list[float]:
        return [100 * (found["fusion", seed]["all"] - found[over, seed]["all"]) for seed in seeds]

    add("fusion over text only", gain("text"), "points", TARGET, "text only, same steps and data")
    add("fusion over prefix tokens", gain("prefix"), "points", 0.0, "prefix tokens, same steps and data")
    add("fusion over its seed form", gain("seed"), "points", None, "seed mode, same steps and data")
    for arm in ARMS:
        for what in ("all", *scenes.ANSWERS):
            add(f"{arm}, {what}", [100 * found[arm, seed][what] for seed in seeds], "% right")
        took = statistics.median(found[arm, seed]["seconds"] for seed in seeds)
        rows.append(
            {"figure": f"visual questions: training of {arm}", "value": round(took), "unit": "s", "machine": where}
        )
    return rows


def main() -> None:
    """Train every arm for every seed, print the table, and write the figures where all arms were asked on test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rows", type=int, default=60_000, help="training questions")
    parser.add_argument("--asked", type=int, default=6_000)
    parser.add_argument("--tower", type=int, default=2, help="blocks of the vision tower")
    parser.add_argument("--sites", nargs="+", default=["embedding", "block:0", "block:1", "block:2"])
    parser.add_argument("--record", action="store_true", help="record a pass as a CUDA graph and replay it")
    parser.add_argument("--runs", type=Path, help="JSON lines: results are added, and those that are there are kept")
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    shared = ("split", "device", "steps", "batch", "rate", "rows", "asked", "tower", "record")
    said = {name: getattr(asked, name) for name in shared}
    plans = [Plan(arm, seed, sites=tuple(asked.sites), **said) for seed in asked.seeds for arm in asked.arms]
    made = _kept(asked.runs)
    left = [plan for plan in plans if plan not in made]
    with multiprocessing.get_context("spawn").Pool(asked.processes) as pool:
        for plan, result in pool.imap_unordered(_with_plan, left):
            made[plan] = result
            if asked.runs is not None:
                with asked.runs.open("a") as file:
                    file.write(json.dumps(asdict(plan) | {"result": result}) + "\n")
    found = {(plan.arm, plan.seed): made[plan] for plan in plans}
    _table(found, asked.arms, asked.seeds)
    if asked.split == "test" and set(asked.arms) == set(ARMS):
        record.write("visual_questions", _rows(found, asked.seeds, asked.device))


def _with_plan(plan: Plan) -> tuple[Plan, dict[str, float]]:
    return plan, train_and_ask(plan)


def _kept(file: Path | None) -> dict[Plan, dict[str, float]]:
    """Results of an earlier call, by what was trained."""
    lines = file.read_text().splitlines() if file is not None and file.exists() else []
    read = [json.loads(line) for line in lines]
    return {Plan(**{k: tuple(v) if k == "sites" else v for k, v in one.items() if k != "result"}): one["result"]
            for one in read}  # fmt: skip


if __name__ == "__main__":
    main()
