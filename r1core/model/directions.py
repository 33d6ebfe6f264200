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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from peft.tuners.lora import Linear
from torch import nn

from r1core.api import UserError
from r1core.model.compiled import evaluating
from r1core.model.scores import body_of, causal_of

ADAPTER = "default"  # PEFT's name for the one adapter of a model
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
    modules = model.named_modules()
    layers = {name: module for name, module in modules if isinstance(module, Linear) and ADAPTER in module.lora_A}
    if not layers or not prompts:
        raise UserError("adapter.initial: nothing to measure on", fix='set adapter.initial = "random"')
    for names, moment in _moments(model, layers, prompts).of_groups():
        values, vectors = torch.linalg.eigh(moment)
        for name in names:
            weight = layers[name].lora_A[ADAPTER].get_parameter("weight")  # (r, I)
            rank, width = weight.shape
            if rank > width:
                raise UserError(f"adapter.rank = {rank}: {name} reads {width} values", fix=f"at most {width}")
            top, directions = values[-rank:].flip(0).clamp(min=0.0), vectors[:, -rank:].flip(1).T  # (r,), (r, I)
            signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
            scale = SIZE / (top + RIDGE * values[-1]).clamp(min=torch.finfo(values.dtype).tiny).sqrt()
            weight.copy_(directions * signs * scale[:, None])


class _Moments:
    """Second moments of what layers read, one for all layers that read one and the same tensor."""

    def __init__(self, layers: Mapping[str, Linear]) -> None:
        self._layers = layers
        self._groups: dict[str, list[str]] = {}  # names of layers, by the first that read their tensor
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: Counter[str] = Counter()

    def of_groups(self) -> Iterator[tuple[list[str], torch.Tensor]]:
        """The layers of each group, and the moment (I, I) fp64 of their input."""
        for first, names in self._groups.items():
            yield names, self._sums[first] / self._counts[first]

    @contextmanager
    def listening(self, last: torch.Tensor, shape: torch.Size) -> Iterator[None]:
        """Inside, a pass over tokens of `shape` (R, T) is added; `last` (R,) are the places of the last ones."""
        before: list[tuple[torch.Tensor, str]] = []  # the tensor that was read before this one, and by whom first

        def listener(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
            def listen(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
                x = inputs[0]
                if before and before[0][0] is x:  # query, key and value read one tensor
                    if name not in (names := self._groups[before[0][1]]):
                        names.append(name)
                    return
                before[:] = [(x, name)]
                whole = x.shape[:-1] == shape
                self._add(name, x[torch.arange(len(x), device=x.device), last] if whole else x.flatten(0, -2))

            return listen

        handles = [layer.register_forward_pre_hook(listener(name)) for name, layer in self._layers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, name: str, rows: torch.Tensor) -> None:
        moment = rows.double().T @ rows.double()
        self._groups.setdefault(name, [name])
        self._sums[name] = self._sums[name] + moment if name in self._sums else moment
        self._counts[name] += len(rows)


def _moments(model: nn.Module, layers: Mapping[str, Linear], prompts: Sequence[Sequence[int]]) -> _Moments:
    """What the layers read at the last token of each prompt."""
    found, order = _Moments(layers), sorted(prompts, key=len)
    body, device = body_of(causal_of(model)), next(model.parameters()).device
    with evaluating(model):
        for first in range(0, len(order), TOGETHER):
            part = order[first : first + TOGETHER]
            longest = len(part[-1])
            ids = torch.tensor([[*row, *[row[-1]] * (longest - len(row))] for row in part], device=device)
            lengths = torch.tensor([len(row) for row in part], device=device)
            mask = (torch.arange(longest, device=device) < lengths[:, None]).long()
            with found.listening(lengths - 1, ids.shape):
                body(input_ids=ids, attention_mask=mask, use_cache=False)
    return found
