"""Perplexity of an R1 whose rotary base is changed: before, after, and after some steps of training on.

Run: python benchmarks/r1_rope.py                           (a small model with base 10,000, made from nothing; CPU)
     python benchmarks/r1_rope.py --dense DIR --device cuda  (a dense Llama, with the base that it has)
The held-out part of ICD-10-CM is read in pieces as long as those of training. The peer of every row after training on
is the same model with the base that it had, trained on for the same steps on the same rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from r1_arms import Arm, built, source
from r1_icd import Part, parts
from r1_small import END, config, vocabulary
from r1_steps import trained
from record import machine, write
from transformers import LlamaForCausalLM

from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.change import Change, perplexity

RATE = 3e-3


def small(folder: Path, steps: int, rows: int, length: int) -> tuple[LlamaForCausalLM, dict[str, Part]]:
    """A small dense model with base 10,000, trained from nothing, and its text."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tokenizer.json").exists():
        vocabulary(folder / "tokenizer.json")
    text = parts(folder / "icd.npz", folder / "tokenizer.json", END)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config(10_000.0))
    trained(model, [(list(model.parameters()), RATE)], text["train"].batches(rows, length, 7), steps, name="10,000")
    return model, text


def changed(model: R1ForCausalLM, base: float) -> R1ForCausalLM:
    """A copy with another base."""
    made = R1ForCausalLM(Change(rope_base=base).applied(model.config)).to(model.device)
    made.load_state_dict(model.state_dict())
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dense", type=Path)
    parser.add_argument("--text", type=Path, default=Path("runs/r1_icd.npz"), help="for --dense")
    parser.add_argument("--folder", type=Path, default=Path("runs/r1_small"), help="of the small model's text")
    parser.add_argument("--steps", type=int, default=400, help="of the small model")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--base", type=float, default=50_000.0, help="that it is changed to")
    parser.add_argument("--on", type=int, nargs="*", default=(10, 50), help="steps of training on")
    parser.add_argument("--held", type=int, help="tokens of the held-out part at most")
    parser.add_argument("--name", default="r1_rope", help="of the results")
    parser.add_argument("--rate", type=float, default=1e-3, help="of training on")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    if chosen.dense is None:
        dense, text = small(chosen.folder, chosen.steps, chosen.rows, chosen.length)
        dense.to(device)  # type: ignore[arg-type]
    else:
        dense = source(chosen.dense, device).float()
        text = parts(chosen.text, chosen.dense / "tokenizer.json", int(dense.config.eos_token_id))
    model, _ = built(Arm("r1", 0.0, 0.0), dense, 0, device)
    assert isinstance(model, R1ForCausalLM)
    held = torch.from_numpy(text["val"].ids)[: chosen.held]
    step = f"rotary base {model.config.rope_theta:,.0f} to {chosen.base:,.0f}"
    where = {"unit": "perplexity", "target": None, "met": None,
             "machine": machine() if device.type == "cpu" else torch.cuda.get_device_name()}  # fmt: skip
    before = perplexity(model, held, chosen.length)
    after = perplexity(changed(model, chosen.base), held, chosen.length)
    rows = [{**where, "figure": f"{step}, no training after it (peer: before it)", "value": round(after, 3),
             "peer": round(before, 3)}]  # fmt: skip
    write(chosen.name, rows)
    for steps in chosen.on:
        found = []
        for base in (chosen.base, model.config.rope_theta):
            copy = changed(model, base)
            batches = text["train"].batches(chosen.rows, chosen.length, seed=11)
            trained(copy, [(list(copy.parameters()), chosen.rate)], batches, steps, name=f"base {base:,.0f}")
            found.append(perplexity(copy, held, chosen.length))
        figure = (
            f"{step}, {steps} steps of {chosen.rows} x {chosen.length} tokens after it"
            " (peer: as many steps without the change)"
        )
        rows.append({**where, "figure": figure, "value": round(found[0], 3), "peer": round(found[1], 3)})
        write(chosen.name, rows)


if __name__ == "__main__":
    main()
