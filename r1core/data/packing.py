"""Several rows as one sequence without cross-contamination: a tree of segments under an ancestor mask.

A segment is a run of tokens with a parent; each token attends to its own segment causally and to its ancestors.
With one root (the prompt prefix that all rows share) and one child a row, the shared tokens are computed once for the
whole batch, and the result equals row-by-row computation: every row sees exactly its own prefix, at its own positions.
Deeper trees score many answers to one prompt in one pass.

Rows that stand one behind another without a shared start need no mask where a flash kernel is told their boundaries.

T = packed tokens, P = supervised positions, R = rows. Not for models whose state is not attention (recurrences,
convolutions): `r1core.model.load.check_packing` compares packed with plain logits before training and refuses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from r1core.api import SlotFeatures, SpanKind
from r1core.data.routes import Routes, routes_of
from r1core.data.tokens import TASK_TOKEN, Encoded, Slot

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens that continues another segment (`parent` index, -1 for a root)."""

    parent: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed tree: `ids`, `positions` (T,); `allowed` (T, T) bool, query by key; `starts`, each segment's offset.

    `allowed` is empty, (0, 0), where no mask was asked for.
    """

    ids: np.ndarray
    positions: np.ndarray
    allowed: np.ndarray
    starts: tuple[int, ...]

    @property
    def ends(self) -> list[int]:
        """Place of the last token of each segment."""
        return [start - 1 for start in (*self.starts[1:], len(self.ids))]


def pack(segments: Sequence[Segment], *, masked: bool = True) -> Packed:
    """Lay segments one behind another, parents before children; without a mask where none is wanted.

    Raises
    ------
    ValueError : when a parent stands behind its child.
    """
    total = sum(len(s.tokens) for s in segments)
    ids, positions = np.empty(total, np.int64), np.empty(total, np.int64)
    owner = np.empty(total, np.int64)
    ancestor = np.zeros((len(segments), len(segments)), bool)  # [child, ancestor-or-self]
    depth: list[int] = []
    starts: list[int] = []
    cursor = 0
    for index, segment in enumerate(segments):
        if segment.parent >= index:
            raise ValueError(f"segment {index} stands before its parent {segment.parent}")
        before = 0
        if segment.parent >= 0:
            ancestor[index] = ancestor[segment.parent]
            before = depth[segment.parent]
        ancestor[index, index] = True
        end = cursor + len(segment.tokens)
        ids[cursor:end] = segment.tokens
        positions[cursor:end] = np.arange(before, before + len(segment.tokens))
        owner[cursor:end] = index
        starts.append(cursor)
        depth.append(before + len(segment.tokens))
        cursor = end
    tree = ancestor[owner[:, None], owner[None, :]] & np.tri(total, dtype=bool) if masked else np.zeros((0, 0), bool)
    return Packed(ids, positions, tree, tuple(starts))


def shared_prefix(rows: Sequence[Sequence[int]], slots: Sequence[Sequence[Slot]]) -> int:
    """Tokens that all rows start with, short of any span and of the last token of the shortest row."""
    limit = min(len(row) for row in rows) - 1
    for row_slots in slots:
        limit = min([limit, *(slot.start for slot in row_slots)])
    first = rows[0]
    for position in range(limit):
        if any(row[position] != first[position] for row in rows):
            return position
    return limit


@dataclass(frozen=True, slots=True)
class Tree:
    """Rows as segments: those of a task behind a root of their own, which holds the start that they share.

    Parameters
    ----------
    tasks : of each segment; "" where rows have none.
    place : segment in which each row stands, or ends.
    root : segment in which its start stands, of each row; -1 where it shares none.
    shared : tokens of each row that stand in its root.
    """

    segments: list[Segment]
    tasks: list[str]
    place: list[int]
    root: list[int]
    shared: list[int]

    def starts(self, packed: Packed) -> list[int]:
        """Packed place of the first token of each row that is not in its root."""
        return [packed.starts[place] for place in self.place]

    def shifts(self, packed: Packed) -> list[int]:
        """By how much the own part of each row stands further on than in the row alone."""
        return [start - shared for start, shared in zip(self.starts(packed), self.shared, strict=True)]


def tree_of(
    rows: Sequence[tuple[int, ...]],
    prompts: Sequence[Sequence[int]],
    slots: Sequence[Sequence[Slot]],
    tasks: Sequence[str] = (),
    *,
    share: bool = True,
) -> Tree:
    """Lay rows out task by task, in the order in which tasks first come.

    Parameters
    ----------
    prompts : the part of each row that may be shared.
    """
    groups: dict[str, list[int]] = {}
    for index in range(len(rows)):
        groups.setdefault(tasks[index] if tasks else "", []).append(index)
    made = Tree([], [], [0] * len(rows), [-1] * len(rows), [0] * len(rows))
    for task, members in groups.items():
        common = share and len(members) > 1
        shared = shared_prefix([prompts[i] for i in members], [slots[i] for i in members]) if common else 0
        root = len(made.segments) if shared else -1
        if shared:
            made.segments.append(Segment(-1, tuple(rows[members[0]][:shared])))
        for index in members:
            made.place[index], made.root[index], made.shared[index] = len(made.segments), root, shared
            made.segments.append(Segment(root, rows[index][shared:]))
        made.tasks.extend([task] * (len(made.segments) - len(made.tasks)))
    return made


def routed(packed: Packed, segments: Sequence[Segment], tasks: Sequence[str]) -> tuple[np.ndarray, Routes | None]:
    """Ids that a vocabulary has, with 0 in the place of task tokens, (T,), and the routes that say where these are."""
    places = packed.ids == TASK_TOKEN
    tokens = np.flatnonzero(places).tolist()
    routes = routes_of(tasks, [len(segment.tokens) for segment in segments[: len(tasks)]], tokens)
    return np.where(places, 0, packed.ids), routes


@dataclass(frozen=True, slots=True)
class Batch:
    """What one forward pass reads. Rows that share a prefix stand in one sequence.

    `input_ids`, `position_ids` (1, T) int64, or (R, T) where each row is a sequence of its own; `mask` (1, 1, T, T)
    additive, in the compute dtype, or None for plain causal rows; `where` (P,) places, of all sequences one behind
    another, whose logits are wanted; `targets`, `row` (P,) int64; `row` is R for a position that only pads. For a flash
    kernel, `boundaries` (R + 2,) int32 tell where each row, and the padding behind them, start and end, and `longest`
    bounds their lengths. `routes` tell each token's task, where rows have one.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor | None
    where: torch.Tensor
    targets: torch.Tensor
    row: torch.Tensor
    rows: int
    features: Mapping[str, SlotFeatures]
    boundaries: torch.Tensor | None = None
    longest: int = 0
    routes: Routes | None = None

    def by_row(self, each: torch.Tensor) -> torch.Tensor:
        """Sums of `each` (P,) over the positions of each row, (R,)."""
        return each.new_zeros(self.rows + 1).index_add(0, self.row, each)[: self.rows]

    def copied(self) -> Batch:
        """The same batch in tensors of its own."""
        own = {name: value.clone() for name in TENSORS if (value := getattr(self, name)) is not None}
        return replace(self, **own)

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device; the copies run beside what the device is doing."""
        if self.input_ids.device == device:
            return self
        copied = {name: value for name in TENSORS if (value := getattr(self, name)) is not None}
        if device.type == "cuda":
            copied = {name: value.pin_memory() for name, value in copied.items()}
        return replace(
            self,
            features={k: f.to(device) for k, f in self.features.items()},
            **{name: value.to(device, non_blocking=True) for name, value in copied.items()},
        )


TENSORS = ("input_ids", "position_ids", "mask", "where", "targets", "row", "boundaries")
"""A batch's tensors, features aside."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows are laid into one sequence.

    Parameters
    ----------
    share : the start that all rows have in common stands once, in front of them.
    apart : every row is a sequence of its own (`r1core.data.padding`); nothing else here says anything then.
    flash : no mask; the boundaries of rows are told to a kernel that keeps them apart. Not together with `share`.
    longest : with `flash`, a bound on the tokens of a row, the same for every batch.
    multiple : with `flash`, padding fills the tokens, and the wanted positions, up to a multiple of this.
    rows : with `flash`, a batch stands for at least this many rows, empty ones included.
    """

    share: bool = True
    apart: bool = False
    flash: bool = False
    longest: int = 0
    multiple: int = 1
    rows: int = 0


SHARED = Layout()


def pack_rows(
    rows: Sequence[Encoded], kinds: Mapping[str, SpanKind], dtype: torch.dtype, layout: Layout = SHARED
) -> Batch:
    """Pack training rows; the last response token is predicted, never read."""
    import torch

    whole = [row.prompt + row.response[:-1] for row in rows]
    tasks = [row.task for row in rows]
    tree = tree_of(whole, [row.prompt for row in rows], [row.slots for row in rows], tasks, share=layout.share)
    padding = -sum(map(len, whole)) % layout.multiple if layout.flash else 0
    segments = tree.segments + ([Segment(-1, (0,) * padding)] if padding else [])
    packed = pack(segments, masked=not layout.flash and len(rows) > 1)
    ids, routes = routed(packed, segments, tree.tasks)
    shifts = tree.shifts(packed)
    where: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for index, (row, shift) in enumerate(zip(rows, shifts, strict=True)):
        first = shift + len(row.prompt) - 1
        where += range(first, first + len(row.response))
        targets += row.response
        owner += [index] * len(row.response)
    number = max(len(rows), layout.rows)
    spare = -len(where) % layout.multiple if layout.flash else 0
    ends = [*packed.starts, *[len(packed.ids)] * (number + 2 - len(packed.starts))]
    return Batch(
        input_ids=torch.from_numpy(ids)[None],
        position_ids=torch.from_numpy(packed.positions)[None],
        mask=additive(packed.allowed, dtype) if packed.allowed.size else None,
        where=torch.tensor(where + [0] * spare),
        targets=torch.tensor(targets + [0] * spare),
        row=torch.tensor(owner + [number] * spare),
        rows=number,
        features=slot_features([row.slots for row in rows], shifts, kinds),
        boundaries=torch.tensor(ends, dtype=torch.int32) if layout.flash else None,
        longest=max(layout.longest, layout.multiple),
        routes=routes.until(len(ids)) if routes is not None else None,
    )


def additive(allowed: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Boolean `(Q, K)` to the additive `(1, 1, Q, K)` mask that attention adds to its scores."""
    import torch

    mask = torch.zeros(allowed.shape, dtype=dtype)
    mask.masked_fill_(torch.from_numpy(~allowed), torch.finfo(dtype).min)
    return mask[None, None]


def slot_features(
    slots: Sequence[Sequence[Slot]], shifts: Sequence[int], kinds: Mapping[str, SpanKind]
) -> dict[str, SlotFeatures]:
    """All rows' spans of each kind as slots of the one packed sequence, with B = 1."""
    import torch

    features = {}
    for name, kind in kinds.items():
        if kind.feature is None:
            continue
        placed = [
            (s.start + shift, s.end + shift, s.values, index)
            for index, (row, shift) in enumerate(zip(slots, shifts, strict=True))
            for s in row
            if s.kind == name
        ]
        features[name] = SlotFeatures(
            start=torch.tensor([[p[0] for p in placed]], dtype=torch.int64),
            end=torch.tensor([[p[1] for p in placed]], dtype=torch.int64),
            values=torch.tensor([p[2] for p in placed], dtype=torch.float32).reshape(1, len(placed), kind.width),
            mask=torch.ones(1, len(placed), dtype=torch.bool),
            row=torch.tensor([[p[3] for p in placed]], dtype=torch.int64),
        )
    return features
