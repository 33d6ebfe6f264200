"""The first pass of generation: all prompts in one packed sequence, their common start computed once.

It leaves what the token-by-token passes go on from: logits, cache, what each row may look back at, and what the layers
say of each row to its constraints, which start after it.

R = rows, T = packed tokens, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers.cache_utils import Cache

from r1core.api import SlotFeatures, SpanKind
from r1core.data.answers import Growing
from r1core.data.packing import Packed, Segment, Tree, additive, pack, routed, slot_features, tree_of
from r1core.data.routes import told
from r1core.data.tokens import Slot
from r1core.model.adapted import LanguageModel
from r1core.model.kv.cache import new_cache
from r1core.model.layers import ExtraLayers, Row

Prompt = tuple[tuple[int, ...], tuple[Slot, ...]]


@dataclass(slots=True)
class Prefilled:
    """Prompts that the model has read.

    `logits` (R, V) behind each prompt; `visible` (R, T): what a row may look back at.

    `extra` (E, V): logits behind the last token of each further segment that was asked for, in order.
    `outputs` : what the layers say of each row, by layer name, for the row's constraints; empty unless asked for.
    `answers` : each row's answer so far, which finds spans of causal kinds in it; empty where the run has none.
    `no_spans` : what the layers are given for tokens behind the prompt that carry no span.
    `tasks` : of each row, where the model is a pool of task adapters.
    """

    logits: torch.Tensor
    extra: torch.Tensor
    visible: np.ndarray
    lengths: list[int]
    cache: Cache
    layers: ExtraLayers
    outputs: list[dict[str, object]]
    answers: Sequence[Growing]
    kinds: Mapping[str, SpanKind]
    no_spans: Mapping[str, SlotFeatures]
    tasks: Sequence[str] = ()


@torch.no_grad()
def prefill(
    model: LanguageModel,
    layers: ExtraLayers,
    kinds: Mapping[str, SpanKind],
    prompts: Sequence[Prompt],
    paths: Sequence[tuple[int, ...]] = (),
    answers: Sequence[Growing] = (),
    *,
    outputs: bool = False,
    tasks: Sequence[str] = (),
    kv_bits: int = 0,
) -> Prefilled:
    """Read all prompts in one pass, and behind each of them every one of `paths` (token runs that start there).

    Parameters
    ----------
    answers : one for each prompt where the run has causal kinds, at the state in which the prompt's tokens end.
    outputs : ask the layers that declare one for their output on each prompt.
    tasks : of each prompt, for a pool of task adapters.
    kv_bits : bits of a number of the cache; 0 keeps what the model computes.
    """
    rows, slots = [p[0] for p in prompts], [p[1] for p in prompts]
    tree = tree_of(rows, rows, slots, tasks)
    segments = [*tree.segments, *(Segment(place, path) for place in tree.place for path in paths)]
    packed = pack(segments)
    ids, routes = routed(packed, segments, [*tree.tasks, *(task for task in tasks for _ in paths)])
    ends = [packed.ends[at] for at in [*tree.place, *range(len(tree.segments), len(segments))]]
    shifts = tree.shifts(packed)
    ahead = [answer.ahead(path) for answer in answers for path in paths]
    if ahead:
        slots, shifts = [*slots, *ahead], [*shifts, *packed.starts[len(tree.segments) :]]
    features = slot_features(slots, shifts, kinds)
    cache, device = new_cache(model, kv_bits), model.device
    plain = len(segments) == 1
    apart = _rows(prompts, packed, tree, kinds, device) if outputs and layers.gives_outputs else []
    with layers.using({k: f.to(device) for k, f in features.items()}, apart):
        output = model(
            input_ids=torch.from_numpy(ids)[None].to(device),
            position_ids=torch.from_numpy(packed.positions)[None].to(device),
            attention_mask=None if plain else additive(packed.allowed, model.dtype).to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=torch.tensor(ends, device=device),
            **told(routes),
        )
        said = layers.outputs() or [{} for _ in rows]
    logits = output.logits[0].float()
    return Prefilled(
        logits=logits[: len(rows)],
        extra=logits[len(rows) :],
        visible=packed.allowed[ends[: len(rows)]],
        lengths=[len(ids) for ids in rows],
        cache=cache,
        layers=layers,
        outputs=said,
        answers=answers,
        kinds=kinds,
        no_spans={k: f.to(device) for k, f in slot_features([], [], kinds).items()},
        tasks=tasks,
    )


def _rows(
    prompts: Sequence[Prompt], packed: Packed, tree: Tree, kinds: Mapping[str, SpanKind], device: torch.device
) -> list[Row]:
    """Each prompt as it stands in the packed sequence: the shared tokens first, then its own."""
    rows = []
    for (ids, slots), start, root, shared in zip(prompts, tree.starts(packed), tree.root, tree.shared, strict=True):
        first = packed.starts[root] if shared else 0
        places = torch.cat([torch.arange(first, first + shared), torch.arange(start, start + len(ids) - shared)])
        features = {kind: found.to(device) for kind, found in slot_features([slots], [0], kinds).items()}
        rows.append(Row(places.to(device), features))
    return rows
