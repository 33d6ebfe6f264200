"""What `decode_constraint` returns: constraints on the generated tokens, over tokens or over bytes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from r1core.api.values import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TokenMask:
    """Which tokens may come next: sparse `banned` ids, or packed `allowed` bits. Exactly one is given.

    `banned` : (n,) int32 or int64 token ids, sorted; int64 ones are applied as they are, which is faster.
    `allowed` : (ceil(V / 8),) uint8, `np.packbits` little-endian order.
    """

    banned: NDArray[np.int32] | NDArray[np.int64] | None = None
    allowed: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if (self.banned is None) == (self.allowed is None):
            raise ValueError("a TokenMask has either `banned` or `allowed`")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a token was refused: the rule, its citation and the text that it guards against."""

    rule: str
    citation: str
    text: str
    severity: str = ""


@runtime_checkable
class ByteAutomaton(Protocol):
    """A deterministic automaton over the bytes of the generated text; the core lifts it to token masks.

    States are small non-negative ints, made lazily or ahead. `row(state)` : (256,) int32, the next state for each
    byte, -1 where that byte is refused. `may_end(state)`: whether the text may end here. An automaton may also offer

    - `rows(states)` : (K, 256) int32, where many rows at once come more cheaply; the core then asks for them together;
    - `after(prompt) -> int` : the state in which an answer to this prompt starts, where it matters what stands before;
    - `trims = True` : a text that stops where it may not end (token limit, stop string) is cut back to where it may.
      Without it, such an answer fails: something that it needs is missing.
    """

    start: int

    def row(self, state: int) -> NDArray[np.int32]: ...
    def may_end(self, state: int) -> bool: ...
    def explain(self, state: int, data: bytes) -> tuple[Reason, ...]:
        """Why `data`, appended in `state`, is refused (b"": why the text may not end); () when it is not."""
        ...


@runtime_checkable
class ConstraintState(Protocol):
    """Immutable state of a constraint after a prefix of tokens; equal `key`s mean equal futures.

    It may also offer `allows(token_id) -> bool`, where that is cheaper than a mask; `may_end(data=b"") -> bool`:
    whether the text may end behind these bytes (a stop string can cut a token); `trims`, as `ByteAutomaton` has it.
    Lifted automata have all three.
    """

    @property
    def key(self) -> Hashable: ...
    def mask(self) -> TokenMask: ...
    def advance(self, token_id: int) -> ConstraintState: ...
    def explain(self, token_id: int) -> tuple[Reason, ...]: ...


class DecodeRequest(Protocol):
    """What a constraint is told about one generation.

    `example` : the prompt with its facts and spans.
    `outputs` : what the layers that declare an `output` computed from this prompt, by layer name. A name is absent
    where its layer is off (`generate --base`) or no model is loaded (`r1core check`).
    """

    @property
    def example(self) -> Example:
        """The prompt; its facts say which rules apply."""
        ...

    @property
    def outputs(self) -> Mapping[str, Any]:
        """What layers computed when the prompt was read, by layer name."""
        ...

    def lift(self, automaton: ByteAutomaton) -> ConstraintState:
        """Turn a byte automaton into a state over this model's tokens (masks cached per automaton state)."""
        ...

    def require(self, phrases: Mapping[str, Sequence[Reason]]) -> ConstraintState:
        """A state that lets the answer end only once it holds every phrase; the reasons say who asks for it."""
        ...


@runtime_checkable
class DecodeConstraint(Protocol):
    """Starts a state for each generation, or None where it has nothing to say about this request.

    It may also offer

    - `recheck(example, text) -> Sequence[Reason]` : what is wrong with an answer, found without the automata that made
      it (`example` is the prompt). Any finding fails the answer: its text is withheld;
    - `requires = True` : where that recheck finds what an answer lacks (a phrase, the rest of a form). It is then left
      out for answers that have failed as unfinished; all others are asked about whatever text would be shown;
    - `rules(example) -> Sequence[str]` : ids of the rules that apply to this prompt, for the audit record;
    - `provenance(example, text) -> JSON` : what an answer rests on, for `generate --json`; None for nothing to tell.
    """

    name: str

    def start(self, request: DecodeRequest) -> ConstraintState | None: ...
    def fingerprint(self) -> str: ...
