"""What R1's routers do on known text: balance of every layer, and what an expert has to do with a chapter.

D = documents, E = experts, L = layers, C = chapters, N = tokens, K = experts of a token.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from r1core.model.r1 import R1ForCausalLM
from r1core.model.r1.balance import spread

Counts = npt.NDArray[np.float64]
PERMUTATIONS = 200
"""Times that the documents' chapters are dealt anew."""


@torch.no_grad()
def routed(model: R1ForCausalLM, rows: npt.NDArray[np.int64], batch: int) -> npt.NDArray[np.int16]:
    """Experts that each layer chooses for each token of rows (R, T): (L, R T, K)."""
    model.eval()
    blocks = model.feed_forwards()
    seen: list[list[npt.NDArray[np.int16]]] = [[] for _ in blocks]

    def keep(layer: int) -> Any:
        return lambda _module, _args, out: seen[layer].append(out.experts.to(torch.int16).cpu().numpy())

    hooks = [block.router.register_forward_hook(keep(layer)) for layer, block in enumerate(blocks)]
    try:
        for start in range(0, len(rows), batch):
            ids = torch.from_numpy(rows[start : start + batch]).to(model.device)
            model(input_ids=ids, use_cache=False, logits_to_keep=1)
    finally:
        for hook in hooks:
            hook.remove()
    return np.stack([np.concatenate(layer) for layer in seen])


def spreads(chosen: npt.NDArray[np.int16], experts: int) -> list[float]:
    """Standard deviation of tokens per expert over their mean, of each layer of (L, N, K)."""
    return [spread(torch.from_numpy(np.bincount(layer.ravel(), minlength=experts))) for layer in chosen]


def by_document(chosen: npt.NDArray[np.int16], documents: npt.NDArray[np.int64], number: int, experts: int) -> Counts:
    """How often each document's tokens went to each expert: (L, D, E)."""
    at = np.repeat(documents.ravel() * experts, chosen.shape[-1])
    counts = [np.bincount(at + layer.ravel(), minlength=number * experts) for layer in chosen]
    return np.stack(counts).reshape(len(chosen), number, experts).astype(np.float64)


def by_chapter(counts: Counts, chapters: npt.NDArray[np.int64], number: int) -> Counts:
    """Counts of documents (L, D, E) summed by chapter, from 1: (L, C, E)."""
    return np.einsum("cd,lde->lce", np.eye(number)[chapters - 1].T, counts)


def information(joint: Counts) -> Counts:
    """Mutual information of chapter and expert, bits, of counts (L, C, E): (L,)."""
    share = joint / joint.sum((1, 2), keepdims=True)
    apart = share.sum(1, keepdims=True) * share.sum(2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(share > 0, share * np.log2(share / apart), 0.0)
    return each.sum((1, 2))


def by_chance(counts: Counts, chapters: npt.NDArray[np.int64], number: int, seed: int = 0) -> Counts:
    """`information` where chapters are dealt to whole documents at random: (PERMUTATIONS, L).

    Whole documents, since tokens of one document go alike: dealing to tokens would call that knowledge of chapters.
    """
    random = np.random.default_rng(seed)
    return np.stack(
        [information(by_chapter(counts, random.permutation(chapters), number)) for _ in range(PERMUTATIONS)]
    )


def lifts(joint: Counts) -> Counts:
    """How much more often a chapter's tokens go to an expert than all tokens do: (L, C, E); 1 where it is unused."""
    with np.errstate(divide="ignore", invalid="ignore"):
        own = joint / joint.sum(2, keepdims=True)
        found = own / (joint.sum(1, keepdims=True) / joint.sum((1, 2), keepdims=True))
    return np.where(np.isfinite(found), found, 1.0)


def top_experts(joint: Counts, layer: int, chapter: int, number: int = 3) -> list[tuple[int, float, float]]:
    """The experts that a chapter (from 1) uses most: expert, share of the chapter's tokens, share of all tokens."""
    own = joint[layer, chapter - 1] / joint[layer, chapter - 1].sum()
    everyone = joint[layer].sum(0) / joint[layer].sum()
    best = np.argsort(-own)[:number]
    return [(int(expert), float(own[expert]), float(everyone[expert])) for expert in best]


def without_favourites(joint: Counts, chapter: int, number: int) -> torch.Tensor:
    """All experts but the `number` of each layer that a chapter (from 1) uses most beyond their share: (L, E) bools."""
    lift = lifts(joint)[:, chapter - 1]
    active = np.ones(lift.shape, dtype=bool)
    np.put_along_axis(active, np.argsort(-lift, axis=-1)[:, :number], False, axis=-1)
    return torch.from_numpy(active)
