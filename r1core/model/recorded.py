"""Decoding steps that a GPU records once and replays, so that the host launches one graph in place of every kernel.

A step reads one new token of each row. It can be recorded where nothing in it depends on a number of the host: what a
cache holds has to lie at fixed addresses (`r1core.model.kv.fixed`), and how much of it is filled on the device.
What can be recorded is said by rules, `Recorded.asked` and `r1core.model.recording.refusal`; the first step is watched,
and a model in which the host reads a tensor is never recorded. Everything else runs as it always does, in between too.
The kernels and their order are those of a step that is not recorded.

Not covered: training, several new tokens of a row, layers with hooks (extra layers), the library's own caches, and
windows but R1's.
"""

# B = batch, V = vocabulary

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.cache_utils import Cache

from r1core.model.kv.fixed import Unanswered

READS = frozenset(
    {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "bincount"}
)
"""Operations that the host waits for: by the numbers of a tensor it goes on, or makes another's shape."""
UNUSED = ("cache_position", "return_dict")
"""Arguments that change nothing in a step: the first is what the cache's length says already."""
ASKED = ("input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep")
"""Arguments of a step."""
SILENT = ("labels", "inputs_embeds", "output_attentions", "output_hidden_states", "output_router_logits")
"""Arguments that have to be left out, None or False."""

IDLE = 4
"""Times that a cache is moved to fixed memory without a step being replayed after it, before that is given up."""

_LOCK = threading.Lock()

Step = Callable[[], torch.Tensor]
"""A pass over what stands in fixed inputs; gives its logits (B, 1, V)."""


def graph(step: Step) -> Step:
    """Record a step on the current GPU; what comes back replays it, and gives the same tensor each time."""
    recorded = torch.cuda.CUDAGraph()
    side = _side(torch.cuda.current_device())
    # Other threads go on meanwhile, but for those that want to record.
    with _LOCK, torch.cuda.graph(recorded, stream=side, capture_error_mode="thread_local"):
        logits = step()

    def replay() -> torch.Tensor:
        recorded.replay()
        return logits

    return replay


@dataclass(slots=True)
class Outcome:
    """What came of it: `why` nothing is recorded, "" where something can be, and how many steps were `replayed`."""

    why: str = ""
    replayed: int = 0


class Memory(Protocol):
    """Where a cache's states stand still, and what changes there with a step; `r1core.model.kv.fixed` has one."""

    @property
    def rows(self) -> int:
        """B."""

    @property
    def length(self) -> int:
        """Tokens of each row that went through."""

    @property
    def stands(self) -> bool:
        """Whether the whole cache still is in this memory."""

    def takes(self, mask: torch.Tensor | None) -> bool:
        """Whether there is a place for what a step says of padding."""

    def see(self, mask: torch.Tensor | None) -> None:
        """Take it."""

    def positions(self) -> torch.Tensor | int:
        """Of the next token, where a step does not say."""

    def step(self) -> AbstractContextManager[None]:
        """Count a token more of each row on the host, around what is recorded."""

    def advance(self, positions: torch.Tensor) -> None:
        """Count it on the device, at the start of what is recorded."""

    def settle(self) -> bool:
        """Do behind a step what cannot be recorded; False where what was recorded is good for nothing any more."""

    def release(self) -> None:
        """Put the cache back."""


class Recorded:
    """The steps of one model through one cache.

    Parameters
    ----------
    forward : of the model.
    memory : moves the cache to fixed memory, with room for so many tokens, for a step with such a mask of padding;
        None where that cannot be.
    """

    _memory: Memory | None
    _replay: Step | None

    def __init__(
        self,
        forward: Callable[..., Any],
        cache: Cache,
        device: torch.device,
        memory: Callable[[torch.Tensor | None], Memory | None],
        record: Callable[[Step], Step] = graph,
    ) -> None:
        self._forward, self._cache, self._device = forward, cache, device
        self._make, self._record = memory, record
        self._memory = self._replay = None
        self._warm, self._idle = False, 0
        self._ids = self._positions = torch.empty(0)
        self.outcome = Outcome()

    def asked(self, given: Mapping[str, Any]) -> bool:
        """Whether a pass with these arguments is a step that can be recorded; then the cache is in fixed memory."""
        if self.outcome.why or torch.is_grad_enabled() or torch.is_autocast_enabled(self._device.type):
            return False
        ids, mask, positions = (given.get(name) for name in ("input_ids", "attention_mask", "position_ids"))
        if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.shape[1] != 1 or ids.device != self._device:
            return False
        if given.get("past_key_values") is not self._cache or given.get("use_cache") is False:
            return False
        if not isinstance(given.get("logits_to_keep", 0), int) or given.keys() - {*ASKED, *UNUSED, *SILENT}:
            return False
        if any(given.get(name) is not None and given[name] is not False for name in SILENT):
            return False
        rows, length = len(ids), self._cache.get_seq_length()
        if mask is not None and (mask.dim() != 2 or tuple(mask.shape) != (rows, length + 1)):
            return False
        if positions is not None and tuple(positions.shape) not in ((rows, 1), (1, 1)):
            return False
        return self._ready(rows, mask)

    def __call__(
        self, ids: torch.Tensor, positions: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor | None:
        """Logits (B, 1, V) behind one new token a row, (B, 1), of a pass that `asked` has said yes to.

        None, and everything as before, where the model asks for what a recorded step does not have.

        Parameters
        ----------
        positions : (B, 1) or (1, 1); None = they go on from what is held.
        mask : (B, tokens) with 0 for padding; None = none.
        """
        memory = self._memory
        assert memory is not None
        memory.see(mask)
        self._ids.copy_(ids)
        following = memory.positions() if positions is None else positions
        if isinstance(following, int):
            self._positions.fill_(following)
        else:
            self._positions.copy_(following)
        try:
            with memory.step():
                logits = self._stepped(memory)
            if not memory.settle():
                self._forget()
        except BaseException as error:
            self.release()
            if isinstance(error, Unanswered):
                self.outcome.why = str(error)
                return None
            raise
        if self.outcome.why:
            self.release()
        return logits

    def release(self) -> None:
        """Let go of what was recorded, and take the cache out of fixed memory."""
        self._forget()
        if self._memory is not None and self._memory.stands:
            self._memory.release()
        self._memory = None

    def _stepped(self, memory: Memory) -> torch.Tensor:
        """One step, as it is or replayed."""

        def step() -> torch.Tensor:
            memory.advance(self._positions)
            out = self._forward(
                input_ids=self._ids, position_ids=self._positions, past_key_values=self._cache, use_cache=True
            )
            logits: torch.Tensor = out.logits
            return logits

        on_gpu = self._device.type == "cuda"
        with torch.cuda.device(self._device) if on_gpu else nullcontext():
            if not self._warm:  # what is compiled or made once is made now
                self._warm = True
                with Watch() as watch:
                    logits = _aside(step) if on_gpu else step()
                if watch.read:
                    self.outcome.why = f"the host reads a tensor in a pass of this model ({watch.read})"
                return logits
            if self._replay is None:
                self._replay = self._record(step)
            self.outcome.replayed, self._idle = self.outcome.replayed + 1, 0
            return self._replay().clone()

    def _ready(self, rows: int, mask: torch.Tensor | None) -> bool:
        """Whether the cache is in fixed memory for such a step, or could be moved there now."""
        memory = self._memory
        if memory is not None and memory.rows == rows and memory.stands and memory.takes(mask):
            return True
        self.release()
        if self._idle == IDLE:
            self.outcome.why = "the cache is changed between any two steps"
            return False
        with torch.inference_mode(False):
            memory = self._make(mask)
            if memory is None or memory.rows != rows:
                return False
            self._memory, self._idle = memory, self._idle + 1
            self._ids = torch.zeros(rows, 1, dtype=torch.long, device=self._device)
            self._positions = torch.zeros_like(self._ids)
        return True

    def _forget(self) -> None:
        self._warm, self._replay = False, None


class Watch(TorchDispatchMode):
    """Notices the host reading a tensor, or sending one.

    `read` : the first such operation; "" = none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, name = func(*args, **(kwargs or {})), func._schema.name.partition("::")[2]
        if not self.read and (name in READS or _crosses(name, args, out)):
            self.read = name
        return out


def _crosses(name: str, args: Any, out: Any) -> bool:
    """Whether numbers go from the host to a device or back, or become a tensor on one."""
    if not isinstance(out, torch.Tensor) or not args or not isinstance(args[0], torch.Tensor):
        return False
    if name == "lift_fresh":
        return out.device.type != "cpu"
    source = args[1] if name == "copy_" else args[0]
    return name in ("copy_", "_to_copy") and isinstance(source, torch.Tensor) and source.device != out.device


def _aside(step: Step) -> torch.Tensor:
    """A step on the stream that is recorded from."""
    here, side = torch.cuda.current_stream(), _side(torch.cuda.current_device())
    with _LOCK:
        side.wait_stream(here)
        with torch.cuda.stream(side):
            logits = step()
        here.wait_stream(side)
    logits.record_stream(here)
    return logits


@cache
def _side(device: int) -> torch.cuda.Stream:
    """One for all recordings: a library of matrix products keeps working memory for each stream that it has seen."""
    return torch.cuda.Stream(device)
