"""What R1 finds again: a passkey and several needles by length and place, with nodes, without, and with full attention.

Run: python benchmarks/r1_retrieval.py                                  (a small R1 from nothing, CPU, minutes)
     python benchmarks/r1_retrieval.py --device cuda --record --dense smollm2 --window 512 --every 256 --length 2048
         --longest 8192 --rate 3e-4 --first 60 --steps 100 --documents 32       (an upcycled one, a GPU, minutes)
The model first learns the task on documents no longer than its window, where all arms see alike. Then every arm goes on
from those weights, on the same documents of one length with eight needles each, for the same steps; the loss counts
the answers only. Then it is asked at that length and beyond, for a needle within the
window, on a node, and some tokens before its node in a block far beyond the window; at a third of the depth each; and
for eight needles at once. An answer is right where the likeliest of all tokens is the word.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from r1_icd import parts
from r1_needles import NEAR, WORDS, Haystack, Ids, english, plain
from r1_steps import added, trained
from record import machine, write
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from r1core.model.r1 import R1Config, R1ForCausalLM
from r1core.model.r1.change import Change

ARMS = ("window and nodes", "window alone", "full attention")
NEEDLES, FEWER, ROWS = 8, 4, 8
"""Needles of a training document and of one within the window; documents of a batch."""
SMALL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 16,
    "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 4, "expert_groups": 2,
    "adaptation_rank": 4, "max_position_embeddings": 32_768, "initializer_range": 0.1,
}  # fmt: skip


def start(chosen: argparse.Namespace) -> R1ForCausalLM:
    """The model that all arms start from: upcycled, or small and new."""
    device = torch.device(chosen.device)
    torch.manual_seed(0)
    if chosen.dense is None:
        return R1ForCausalLM(R1Config(**SMALL, sliding_window=None)).to(device)  # type: ignore[arg-type]
    from r1_arms import Arm, built, source

    model, _ = built(Arm("r1", 0.0, 0.0), source(chosen.dense, device), 0, device)
    return model  # type: ignore[return-value]


def arm(model: R1ForCausalLM, name: str, window: int, every: int, longest: int) -> R1ForCausalLM:
    """A copy of a model that reaches as the arm's name says."""
    config = Change(positions=max(longest, model.config.max_position_embeddings)).applied(model.config)
    config.sliding_window = None if name == "full attention" else window
    config.global_every = every if name == "window and nodes" else None
    with model.device:
        copy = R1ForCausalLM(config).to(model.dtype)
        copy.load_state_dict(model.state_dict())
        copy.model.rotary_emb = LlamaRotaryEmbedding(config)  # type: ignore[arg-type]  # a cast rounds its frequencies
    return copy


def answers_loss(hay: Haystack, needles: int) -> Callable[[PreTrainedModel, torch.Tensor], torch.Tensor]:
    """Mean loss of the answers, nats."""

    places: dict[int, torch.Tensor] = {}  # on the device already where a pass is recorded

    def loss(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
        length = ids.shape[1]
        if length not in places:
            places[length] = torch.from_numpy(hay.asked_at(length, needles)).to(ids.device)
        at = places[length]
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=at).logits
        return functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, at + 1].flatten()) + added(model)

    return loss


def drawn(hay: Haystack, rows: int, length: int, needles: int, seed: int) -> Iterator[Ids]:
    """Training documents without end, the same for every arm."""
    step = 0
    while True:
        yield hay.training(np.random.default_rng((seed, step)), rows, length, needles)
        step += 1


@torch.no_grad()
def share_right(model: R1ForCausalLM, hay: Haystack, length: int, places: list[int | None], documents: int,
                depth: tuple[float, float] = (0.0, 1.0)) -> float:  # fmt: skip
    """Share of right answers over documents with needles at these places."""
    model.eval()
    random = np.random.default_rng((length, documents, len(places)))
    at = torch.from_numpy(hay.asked_at(length, len(places)))
    batch = max(1, min(documents, (1 << 15) // length))
    right: list[float] = []
    for _ in range(documents // batch):
        ids = torch.from_numpy(np.stack([hay.document(random, length, places, depth) for _ in range(batch)]))
        said = model(input_ids=ids.to(model.device), use_cache=False, logits_to_keep=at.to(model.device)).logits
        right.append(float((said.argmax(-1).cpu() == ids[:, at + 1]).float().mean()))
    return float(np.mean(right))


def asked(hay: Haystack, length: int, together: int) -> dict[str, tuple[list[int | None], tuple[float, float]]]:
    """The questions of the table: name, places of the needles, depth; `together` needles of a kind in a document."""
    whole, every = (0.0, 1.0), hay.every
    blocks = (length - together * hay.size - hay.window) // every  # far ones: each holds one needle of a kind
    many = max(1, min(together, blocks // 2))
    name = "passkey" if together == 1 else f"needles, {many} of a kind,"
    table: dict[str, tuple[list[int | None], tuple[float, float]]] = {
        f"{name} within the window": ([NEAR] * many, whole)
    }
    for distance in sorted({0, 1, every // 16, every // 4, every - hay.size}):
        where = "on a node" if distance == 0 else f"{distance} before its node"
        table[f"{name} far, {where}"] = ([distance] * many, whole)
    for third, depth in enumerate(("first", "middle", "last")):
        some = max(1, min(together, blocks // 6))
        table[f"far, {every // 4} before its node, {depth} third"] = (
            [every // 4] * some,
            (third / 3, (third + 1) / 3),
        )
    table[f"{NEEDLES} needles far, anywhere"] = ([None] * NEEDLES, whole)
    return table


def folder_of(name: str) -> Path:
    """A model's directory, or that of the wheel's SmolLM2."""
    if name != "smollm2":
        return Path(name)
    from r1core_smollm2.source import NAME, SmolLM2Source

    return SmolLM2Source().materialise(NAME)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dense", type=folder_of, help="directory of a dense Llama to upcycle; `smollm2`: the wheel's")
    parser.add_argument("--text", type=Path, default=Path("runs/r1_icd.npz"))
    parser.add_argument("--window", type=int, default=64)
    parser.add_argument("--every", type=int, default=32)
    parser.add_argument("--length", type=int, default=256, help="of training documents")
    parser.add_argument("--longest", type=int, default=4096)
    parser.add_argument("--first", type=int, default=600, help="steps on documents within the window")
    parser.add_argument("--steps", type=int, default=400, help="steps on documents of `length`")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--documents", type=int, default=64, help="of each cell of the table")
    parser.add_argument("--together", type=int, default=1, help="needles of a kind in a document; 1 = a passkey")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--record", action="store_true", help="replay passes of full attention as CUDA graphs")
    parser.add_argument("--name", default="r1_retrieval", help="of the results")
    chosen = parser.parse_args()
    if chosen.dense is None:
        hay = plain(chosen.every, chosen.window)
    else:
        tokenizer = chosen.dense / "tokenizer.json"
        hay = english(tokenizer, parts(chosen.text, tokenizer, 2)["train"].ids, chosen.every, chosen.window)
    model = start(chosen)
    within = drawn(hay, ROWS * chosen.length // chosen.window, chosen.window, FEWER, 1)
    rates = [(list(model.parameters()), chosen.rate)]
    if chosen.first:
        loss = answers_loss(hay, FEWER)
        trained(model, rates, within, chosen.first, loss, name="within the window", record=chosen.record)
    lengths = [chosen.length * 4**power for power in range(9) if chosen.length * 4**power <= chosen.longest]
    rows: list[dict[str, object]] = []
    for name in chosen.arms:
        copy = arm(model, name, chosen.window, chosen.every, chosen.longest)
        groups = [(list(copy.parameters()), chosen.rate)]
        loss = answers_loss(hay, NEEDLES)
        if chosen.steps:
            documents = drawn(hay, ROWS, chosen.length, NEEDLES, 0)
            recorded = chosen.record and copy.config.sliding_window is None  # a window asks the host where nodes are
            trained(copy, groups, documents, chosen.steps, loss, name=name, record=recorded)
        reach = "" if name == "full attention" else f" of {chosen.window}"
        nodes = f" every {chosen.every}" if name == "window and nodes" else ""
        label = f"{name.replace('window', 'window' + reach)}{nodes}, {chosen.first} + {chosen.steps} steps"
        rows += table_of(copy, hay, lengths, label, chosen.documents, chosen.together)
        write(chosen.name, rows)


def table_of(
    model: R1ForCausalLM, hay: Haystack, lengths: list[int], arm_name: str, documents: int, together: int
) -> list[dict[str, object]]:
    """Rows of the results: share of right answers by question and length."""
    where = machine() if model.device.type == "cpu" else torch.cuda.get_device_name()
    found: list[dict[str, object]] = []
    for length in lengths:
        for question, (places, depth) in asked(hay, length, together).items():
            fewer = max(2, documents // len(places) // (1 + length // (1 << 13)))
            share = share_right(model, hay, length, places, fewer, depth)
            found.append({"figure": f"{arm_name}: {question}, {length} tokens", "value": round(share, 3),
                          "unit": "share right", "target": None, "met": None, "peer": round(1 / WORDS, 3),
                          "machine": where})  # fmt: skip
    return found


if __name__ == "__main__":
    main()
