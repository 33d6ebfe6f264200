"""Losses of r1core beside those of plain transformers + PEFT on identical batches, from identical weights, in fp32.

Run: python benchmarks/loss_parity.py [--steps 50] [--packings shared_prefix,best_fit,none] [--folder runs/parity]
SmolLM2-135M-Instruct on the medical demonstration's rows; LoRA of rank 16 on all linear layers of all blocks. The plain
side is a loop as anybody would write it: rows padded on the right under an attention mask, labels of -100 outside of
the answers, the model's own loss, torch's AdamW with a cosine schedule, gradients clipped at 1. Two more plain
loops tell how far rounding alone moves it: rows one by one, and the loss taken in double precision from the same
logits (torch's fp32 cross-entropy over 49,152 words is off by 1e-6 of its value, always to the same side). r1core is
run with that cross-entropy of torch's in place of its own, too. And transformers + PEFT score every step's batch with
the very weights that our step began with: what differs there is the loss, not two trainings.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from medical_rows import InTurn, Medical, medical
from record import write

from r1core.data.tokens import Encoded

RANK, ALPHA, WARM = 16, 32, 0.05
TARGET = 1e-5
"""Largest relative difference of a step's loss that is aimed at."""


def factor(step: int, steps: int) -> float:
    """The learning rate's factor: linear warm-up, then cosine."""
    warm = max(1, round(steps * WARM))
    after = (step - warm) / max(1, steps - warm)
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * after))


Weights = dict[str, torch.Tensor]
"""The adapter's tensors by name."""


def our_losses(
    data: Medical, steps: int, rate: float, packing: str, *, torchs: bool = False
) -> tuple[list[float], list[Weights]]:
    """Each step's loss, by `torchs` cross-entropy or our own, and the adapter's weights that it was computed with."""
    from r1core.model.adapter import adapter_tensors, add_adapter
    from r1core.model.layers import ExtraLayers
    from r1core.model.load import load_model
    from r1core.model.scores import Reader
    from r1core.recipe.training import Adapter, Train
    from r1core.train.loop import Trainer
    from r1core.train.objective import objective_of

    base = load_model(data.base, precision="fp32", attention=data.attention)
    adapted = add_adapter(base, Adapter(rank=RANK, alpha=ALPHA), seed=0)
    trail: list[Weights] = []
    losses: list[float] = []

    def on_step(_: int, metrics: Mapping[str, float]) -> None:
        """On a CPU, called before the optimiser changes the weights."""
        losses.append(metrics["loss"])
        trail.append({name: tensor.clone() for name, tensor in adapter_tensors(adapted.model).items()})

    config = Train(
        batch_size=data.batch, steps=steps, learning_rate=rate, schedule="cosine", warmup_fraction=WARM,
        packing=packing, checkpoint_every=10**6,  # type: ignore[arg-type]
    )  # fmt: skip
    trainer = Trainer(
        adapted.model, ExtraLayers(base, [], 0), data.rows, {}, objective_of(config), config,
        order=InTurn(data.batch, steps), seed=0, save=lambda *_: None,
        on_step=on_step,
    )  # fmt: skip
    if torchs:
        trainer.read = Reader(adapted.model, linear=False)
    trainer.run()
    return losses, trail


def plain_model(data: Medical) -> tuple[torch.nn.Module, dict[str, torch.nn.Parameter]]:
    """Transformers and PEFT only: the model, and what is trained by the name that a file of it has."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    directory = data.base.directory()
    base = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation=data.attention)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora).train()
    return model, {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def put(weights: Weights, trained: dict[str, torch.nn.Parameter]) -> None:
    """Give the plain model the adapter's `weights`, all of them."""
    assert len(weights) == len(trained)
    for name, tensor in weights.items():
        trained[name.replace(".default", "")].copy_(tensor)


@torch.no_grad()
def losses_along(data: Medical, trail: Sequence[Weights]) -> list[float]:
    """The plain model's loss in double precision, of each step's batch by that step's weights."""
    model, trained = plain_model(data)
    losses = []
    for step, weights in enumerate(trail):
        put(weights, trained)
        ids, labels, seen = padded(data.rows[step * data.batch : (step + 1) * data.batch])
        losses.append(mean_loss(model, ids, labels, seen, double=True).item())
    return losses


def plain_losses(
    data: Medical, steps: int, rate: float, begin: Weights, *, alone: bool = False, double: bool = False
) -> list[float]:
    """The same by transformers and PEFT only, from the same adapter; rows `alone`, or the loss in `double`."""
    model, trained = plain_model(data)
    put(begin, trained)
    optimizer = torch.optim.AdamW(trained.values(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, steps))
    losses = []
    for step in range(steps):
        rows = data.rows[step * data.batch : (step + 1) * data.batch]
        supervised = sum(len(row.response) for row in rows)
        total = 0.0
        for part in [[row] for row in rows] if alone else [rows]:
            ids, labels, seen = padded(part)
            share = sum(len(row.response) for row in part) / supervised
            loss = mean_loss(model, ids, labels, seen, double) * share
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses


def mean_loss(
    model: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor, seen: torch.Tensor, double: bool
) -> torch.Tensor:
    """The model's own loss, or the same in double precision from its logits."""
    if not double:
        return model(input_ids=ids, attention_mask=seen, labels=labels).loss
    logits = model(input_ids=ids, attention_mask=seen).logits[:, :-1]
    answers = labels[:, 1:] != -100
    return torch.nn.functional.cross_entropy(logits[answers].double(), labels[:, 1:][answers])


def padded(rows: Sequence[Encoded]) -> Iterator[torch.Tensor]:
    """Ids, labels and attention mask, (rows, tokens of the longest)."""
    wholes = [torch.tensor(row.prompt + row.response) for row in rows]
    answers = [torch.tensor([-100] * len(row.prompt) + list(row.response)) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    yield pad(wholes, batch_first=True)
    yield pad(answers, batch_first=True, padding_value=-100)
    yield pad([torch.ones_like(whole) for whole in wholes], batch_first=True)


def apart(losses: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Relative difference of each step's loss."""
    return [abs(a - b) / abs(b) for a, b in zip(losses, reference, strict=True)]


def tell(name: str, losses: Sequence[float], reference: Sequence[float]) -> None:
    """Say at once how far a run is from the plain one: each takes minutes."""
    steps = [f"{share:.1e}" for share in apart(losses, reference)[:: max(1, len(losses) // 10)]]
    worst = max(apart(losses, reference))
    print(f"{name} loss {losses[0]:.6f} to {losses[-1]:.6f}, worst {worst:.2e}, over time {steps}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--packings", default="shared_prefix,best_fit,none")
    parser.add_argument("--folder", type=Path, default=Path("runs/parity"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    steps, rate = chosen.steps, chosen.rate
    data = medical(chosen.folder, steps * 16)
    found: dict[str, list[float]] = {}
    first, *others = chosen.packings.split(",")
    found[f"r1core, {first},"], trail = our_losses(data, steps, rate, first)
    along = max(apart(found[f"r1core, {first},"], losses_along(data, trail)))
    print(
        f"r1core, {first}, against the plain model with the same weights at every step: worst {along:.2e}", flush=True
    )
    begin = trail[0]
    del trail
    plain = plain_losses(data, steps, rate, begin)
    tell(f"r1core, {first},", found[f"r1core, {first},"], plain)
    for packing in others:
        found[f"r1core, {packing},"] = our_losses(data, steps, rate, packing)[0]
        tell(f"r1core, {packing},", found[f"r1core, {packing},"], plain)
    name = f"r1core, {first}, by torch's cross-entropy,"
    found[name] = our_losses(data, steps, rate, first, torchs=True)[0]
    tell(name, found[name], plain)
    found["plain, rows one by one,"] = plain_losses(data, steps, rate, begin, alone=True)
    exact = plain_losses(data, steps, rate, begin, double=True)
    rows: list[dict[str, object]] = []
    for against, reference in (("plain padded", plain), ("plain padded with its loss in double precision", exact)):
        for name, losses in found.items():
            worst = max(apart(losses, reference))
            figure = f"largest relative difference of a loss, {name} against {against}"
            rows.append({"figure": f"{figure} ({steps} steps, fp32, rate {rate:g})", "value": float(f"{worst:.3g}")})
            rows[-1] |= {"unit": "fraction", "peer": "transformers + PEFT"}
            if name.startswith("r1core") and (reference is plain or "torch's" not in name):
                rows[-1] |= {"target": f"<= {TARGET}", "met": worst <= TARGET}
    figure = f"largest relative difference of a loss, r1core, {first}, against the plain model with the same weights"
    rows.append({"figure": f"{figure} at each of {steps} steps", "value": float(f"{along:.3g}"), "unit": "fraction"})
    rows[-1] |= {"peer": "transformers + PEFT", "target": f"<= {TARGET}", "met": along <= TARGET}
    write("loss_parity", rows)


if __name__ == "__main__":
    main()
