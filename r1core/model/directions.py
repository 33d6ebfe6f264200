"""Where a LoRA's A starts: at the principal directions of what its layer reads, instead of at random ones.

With B at zero, A decides what B can learn from in its first steps. A random A mixes what tells inputs apart with the
large direction that all of them share, and that share fills up the gradient: under a privacy policy it takes most of
the clipping norm. Here the rows of A are the leading eigenvectors of the inputs' second moment, each scaled so that
what it gives has one size: the shared direction becomes one feature among `rank` equal ones. Data-driven starts are
due to EVA (arXiv:2410.07170), which centres its inputs first and by default keeps their sizes.

R = prompts of a pass, T = tokens, I = input width, r = rank. The inputs are those at a prompt's last token, where the
answer begins; of a layer that sees tokens routed to it (an expert), all that it saw. Not covered: adapters other than
PEFT's low-rank ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from r1core.api import UserError
from r1core.model.scores import body_of, causal_of

PROMPTS = 2048  # the most that are read: a second moment of width 1,536 is settled by about as many
TOGETHER = 64  # prompts of a pass
SIZE = 0.5  # root mean square of each feature over the prompts, about that of a random A behind a norm
RIDGE = 1e-4  # of the largest eigenvalue, added to each: a direction that no prompt has is not blown up


def spread(number: int, most: int = PROMPTS) -> list[int]:
    """Which of `number` prompts are read: all, or `most` of them, evenly spaced."""
    return [index * number // most for index in range(most)] if number > most else list(range(number))


@torch.no_grad()
def start_at_directions(model: nn.Module, prompts: Sequence[Sequence[int]]) -> None:
    """Set every A of an untrained adapter, in place; the model still gives what its base gives.

    Parameters
    ----------
    prompts : token ids of each, none empty.

    Raises
    ------
    UserError : for a rank above a layer's input width, and without prompts.
    """
    layers = {name: module for name, module in model.named_modules() if _plain(module)}
    if not layers or not prompts:
        raise UserError("adapter.initial: nothing to measure on", fix='set adapter.initial = "random"')
    for names, moment in _moments(model, layers, prompts):
        values, vectors = torch.linalg.eigh(moment)
        for name in names:
            weight = layers[name].lora_A["default"].weight  # (r, I)
            rank, width = weight.shape
            if rank > width:
                raise UserError(f"adapter.rank = {rank}: {name} reads {width} values", fix=f"at most {width}")
            top, directions = values[-rank:].flip(0).clamp(min=0.0), vectors[:, -rank:].flip(1).T  # (r,), (r, I)
            signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
            scale = SIZE / (top + RIDGE * values[-1]).clamp(min=torch.finfo(values.dtype).tiny).sqrt()
            weight.copy_(directions * signs * scale[:, None])


def _plain(module: nn.Module) -> bool:
    return isinstance(module, LoraLayer) and "default" in module.lora_A


def _moments(
    model: nn.Module, layers: dict[str, nn.Module], prompts: Sequence[Sequence[int]]
) -> Iterator[tuple[list[str], torch.Tensor]]:
    """The second moment (I, I) fp64 of the inputs of each group of layers that read one and the same tensor."""
    groups: dict[str, list[str]] = {}
    sums: dict[str, torch.Tensor] = {}
    counts: Counter[str] = Counter()
    order = sorted(prompts, key=len)
    training = model.training
    model.eval()
    body, device = body_of(causal_of(model)), next(model.parameters()).device
    for first in range(0, len(order), TOGETHER):
        part = order[first : first + TOGETHER]
        longest = len(part[-1])
        ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in part], device=device)
        lengths = torch.tensor([len(row) for row in part], device=device)
        mask = (torch.arange(longest, device=device) < lengths[:, None]).long()
        with _listening(layers, lengths - 1, ids.shape, groups, sums, counts):
            body(input_ids=ids, attention_mask=mask, use_cache=False)
    model.train(training)
    for leader, names in groups.items():
        yield names, sums[leader] / counts[leader]


@contextmanager
def _listening(
    layers: dict[str, nn.Module],
    last: torch.Tensor,
    shape: torch.Size,
    groups: dict[str, list[str]],
    sums: dict[str, torch.Tensor],
    counts: Counter[str],
) -> Iterator[None]:
    """Inside, each layer's inputs are added to the moment of its group."""
    before: list[tuple[torch.Tensor, str]] = []

    def listen(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            x = inputs[0]
            if before and before[-1][0] is x:  # query, key and value read one tensor
                if name not in (names := groups[before[-1][1]]):
                    names.append(name)
                return
            before[:] = [(x, name)]
            rows = x[torch.arange(len(x), device=x.device), last] if x.shape[:-1] == shape else x.flatten(0, -2)
            rows = rows.double()
            groups.setdefault(name, [name])
            counts[name] += len(rows)
            sums[name] = sums.get(name, 0) + rows.T @ rows

        return layers[name].register_forward_pre_hook(hook)

    handles = [listen(name) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
