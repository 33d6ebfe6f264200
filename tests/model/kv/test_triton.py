"""The GPU's kernels where no GPU is: their source run in plain torch, against plain torch that does not share it.

`Language` stands in for the few operations of Triton's language that the kernels take, a program after the other, and
refuses what they may not do: reading or writing outside of a tensor, sizes that are no power of two, products of
unlike dtypes. What a compiler makes of them on a GPU is measured by benchmarks/kv_cache_gpu.py.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from r1core.model.kv.blocks import quantise_plainly
from r1core.model.kv.fixed import FixedCache
from r1core.model.kv.states import PackedStates

PROGRAM: list[tuple[int, ...]] = [()]
"""Where the running program stands in its grid."""


class Pointer:
    """An address, or many, in the storage of a tensor."""

    def __init__(self, memory: torch.Tensor, at: Any) -> None:
        self.memory, self.at = memory, at

    def __add__(self, more: Any) -> Pointer:
        return Pointer(self.memory, self.at + more)

    def places(self, mask: Any) -> tuple[torch.Tensor, torch.Tensor]:
        at, real = torch.broadcast_tensors(
            torch.as_tensor(self.at).long(), torch.as_tensor(True if mask is None else mask)
        )
        assert bool((((at >= 0) & (at < len(self.memory))) | ~real).all()), "outside of the tensor"
        return at, real


def pointer(tensor: torch.Tensor) -> Pointer:
    count = tensor.untyped_storage().nbytes() // tensor.element_size()
    memory = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage(), 0, (count,), (1,))  # type: ignore[call-overload]
    return Pointer(memory, tensor.storage_offset())


def load(source: Pointer, mask: Any = None, other: float = 0) -> torch.Tensor:
    at, real = source.places(mask)
    found = torch.full(at.shape, other, dtype=source.memory.dtype)
    found[real] = source.memory[at[real]]
    return found


def store(target: Pointer, numbers: torch.Tensor, mask: Any = None) -> None:
    at, real = target.places(mask)
    target.memory[at[real]] = numbers.expand(at.shape)[real].to(target.memory.dtype)


def arange(start: int, stop: int) -> torch.Tensor:
    assert (stop - start) & (stop - start - 1) == 0, "no power of two"
    return torch.arange(start, stop, dtype=torch.int32)


def dot(left: torch.Tensor, right: torch.Tensor, input_precision: str = "") -> torch.Tensor:
    assert left.dtype == right.dtype
    assert min(*left.shape, *right.shape) >= 16
    return left.float() @ right.float()


def div_rn(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    assert left.dtype == right.dtype == torch.float32
    return left / right


def either(choose: Callable[..., torch.Tensor]) -> Callable[[Any, Any], torch.Tensor]:
    """Of two tensors or numbers; a number takes the other's dtype."""

    def of(left: Any, right: Any) -> torch.Tensor:
        dtype = next((x.dtype for x in (left, right) if isinstance(x, torch.Tensor)), torch.int32)
        return choose(*(x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=dtype) for x in (left, right)))

    return of


class Constant(float):
    """A number that is known when a kernel is compiled."""

    @property
    def value(self) -> float:
        return float(self)


class Kernel:
    """A kernel's function: called inside of another as it is, launched over a grid program by program."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *given: Any) -> Any:
        return self.function(*given)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*given: Any, num_warps: int = 4, num_stages: int = 3) -> None:
            told = [pointer(part) if isinstance(part, torch.Tensor) else part for part in given]
            for PROGRAM[0] in itertools.product(*map(range, grid)):
                self.function(*told)

        return launch


LANGUAGE = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "int32": torch.int32, "int64": torch.int64,
    "uint8": torch.uint8, "constexpr": Constant, "load": load, "store": store, "arange": arange, "dot": dot,
    "div_rn": div_rn, "maximum": either(torch.maximum), "minimum": either(torch.minimum), "where": torch.where,
    "max": lambda x, axis: x.amax(axis), "min": lambda x, axis: x.amin(axis), "sum": lambda x, axis: x.sum(axis),
    "exp2": torch.exp2, "log2": torch.log2, "static_range": range, "debug_barrier": lambda: None,
    "zeros": lambda shape, dtype: torch.zeros(shape, dtype=dtype), "zeros_like": torch.zeros_like,
    "full": lambda shape, value, dtype: torch.full(shape, value, dtype=dtype),
    "program_id": lambda axis: torch.tensor(PROGRAM[0][axis], dtype=torch.int32),
}  # fmt: skip
NAMES = ("r1core.model.kv.triton_attend", "r1core.model.kv.triton_pack")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """The modules of attention and of packing."""
    language, triton = types.ModuleType("triton.language"), types.ModuleType("triton")
    vars(language).update(LANGUAGE)
    vars(triton).update(
        language=language, cdiv=lambda a, b: -(-a // b), next_power_of_2=lambda n: 1 << (n - 1).bit_length(),
        jit=lambda function=None, **_: Kernel if function is None else Kernel(function),
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "triton", triton)
        patch.setitem(sys.modules, "triton.language", language)
        attend, pack = map(importlib.import_module, NAMES)
    monkeypatch.setattr(attend, "_multiprocessors", lambda _: 3)
    yield attend, pack
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("bits", [4, 5, 6])
@pytest.mark.parametrize("widths", [(64, 64), (128, 128), (24, 16), (80, 40)])
def test_blocks_are_packed_bit_for_bit_as_in_plain_torch(
    kernels: tuple[Any, Any], bits: int, widths: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    keys, values = (torch.randn(2, 128, 1, width).bfloat16().transpose(1, 2) for width in widths)
    keys[:, :, 64:96] = 2.0  # all of a group alike
    for mine, plain in zip(
        kernels[1].pack_blocks(keys, values, bits), quantise_plainly(keys, values, bits).tensors(), strict=True
    ):
        assert mine.dtype == plain.dtype
        assert torch.equal(mine, plain)


CASES = [
    # bits, key and value widths, dtype, queries of a key head, new tokens, tokens held, tokens seen, mask
    (4, (64, 64), torch.float32, 3, 1, 400, 401, "none"),
    (4, (128, 128), torch.bfloat16, 4, 1, 230, 231, "bool"),
    (5, (24, 16), torch.float32, 2, 2, 300, 150, "added"),
    (6, (80, 40), torch.float32, 1, 3, 300, 301, "hidden"),
    (5, (64, 64), torch.float32, 3, 1, 1000, 31, "none"),
    (4, (64, 64), torch.float32, 8, 8, 200, 201, "bool"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_attention_from_the_codes_is_attention_to_what_is_unpacked(kernels: tuple[Any, Any], case: Any) -> None:
    bits, widths, dtype, group, new, tokens, seen, kind = case
    torch.manual_seed(1)
    states = PackedStates(bits)
    states.append(*(torch.randn(2, 1, tokens, width).to(dtype) for width in widths))
    held = states.append(*(torch.randn(2, 1, 1, width).to(dtype) for width in widths)).last(seen)
    query = torch.randn(2, group, new, widths[0]).to(dtype)
    drawn = torch.rand(2, 1, new, held.length) < 0.7
    mask = {
        "none": None, "bool": drawn, "added": torch.randn(1, group, 1, held.length).to(dtype),
        "hidden": torch.where(drawn, 0.0, -torch.inf).to(dtype),
    }[kind]  # fmt: skip
    keys, values = (part.double().expand(-1, group, -1, -1) for part in (held.read_keys(), held.read_values()))
    told = mask if mask is None or mask.dtype == torch.bool else mask.double()
    scores = query.double() @ keys.mT * 0.2
    if told is not None:
        scores = scores.masked_fill(~told, -torch.inf) if told.dtype == torch.bool else scores + told
    out, log = kernels[0].attend(held.blocks, (*held.first, *held.newest), held.hidden, query, mask, 0.2)
    right = scaled_dot_product_attention(query.double(), keys, values, told, scale=0.2)
    far = 1e-5 if dtype == torch.float32 else 1e-2
    assert float((out.double() - right).norm() / right.norm()) < far
    assert torch.allclose(log.double(), scores.logsumexp(-1), atol=1e-4)


@pytest.mark.parametrize(("tokens", "more", "padded"), [(60, 40, True), (93, 400, False), (413, 64, True)])
def test_lengths_on_the_device_give_to_the_bit_what_lengths_on_the_host_give(
    kernels: tuple[Any, Any], tokens: int, more: int, padded: bool
) -> None:
    torch.manual_seed(2)
    states, same = PackedStates(4), PackedStates(4)
    drawn = [torch.randn(2, 1, tokens, 64) for _ in range(2)]
    states.append(*drawn)
    same.append(*drawn)
    memory = FixedCache([states], more, padded=padded)
    mask = torch.rand(2, tokens + 9) < 0.7
    for step in range(9):
        new, query = [torch.randn(2, 1, 1, 64) for _ in range(2)], torch.randn(2, 3, 1, 64)
        seen = mask[:, : tokens + step + 1] if padded else None
        memory.see(seen)
        with memory.step():
            memory.advance(torch.zeros(2, 1))
            fixed = states.fixed
            assert fixed is not None
            fixed.append(*new)
            exact, lengths = (*fixed.first, *fixed.newest), memory.lengths
            found = kernels[0].attend(fixed.blocks, exact, 0, query, lengths.seen, None, lengths.told)[0]
        held = same.append(*new)
        if held.blocks is not None:
            told = None if seen is None else seen[:, None, None]
            kept = (*held.first, *held.newest)
            assert torch.equal(found, kernels[0].attend(held.blocks, kept, 0, query, told, None)[0])
        keys, values = (part.expand(-1, 3, -1, -1) for part in (held.read_keys(), held.read_values()))
        right = scaled_dot_product_attention(query, keys, values, None if seen is None else seen[:, None, None])
        assert torch.allclose(found, right, atol=1e-5)
        assert memory.settle()
