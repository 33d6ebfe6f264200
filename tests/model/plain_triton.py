"""What stands in for Triton where no GPU is: the few operations of its language that kernels take, in plain torch.

One program runs after the other, and refused is what kernels may not do: reading or writing outside of a tensor, sizes
that are no power of two, products of unlike dtypes.
"""

from __future__ import annotations

import importlib
import itertools
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch

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

    @property
    def dtype(self) -> Any:
        return types.SimpleNamespace(element_ty=self.memory.dtype)


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


def dot(left: torch.Tensor, right: torch.Tensor, total: Any = 0.0, input_precision: str = "") -> torch.Tensor:
    assert left.dtype == right.dtype
    assert min(*left.shape, *right.shape) >= 16
    return left.float() @ right.float() + total


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
    "max": lambda x, axis: x.amax(axis), "min": lambda x, axis: x.amin(axis),
    "sum": lambda x, axis=None: x.sum() if axis is None else x.sum(axis), "cumsum": torch.cumsum,
    "exp2": torch.exp2, "log2": torch.log2, "static_range": range, "debug_barrier": lambda: None,
    "zeros": lambda shape, dtype: torch.zeros(shape, dtype=dtype), "zeros_like": torch.zeros_like,
    "full": lambda shape, value, dtype: torch.full(shape, value, dtype=dtype),
    "program_id": lambda axis: torch.tensor(PROGRAM[0][axis], dtype=torch.int32),
}  # fmt: skip


@contextmanager
def imported(
    monkeypatch: pytest.MonkeyPatch, names: Sequence[str], compiler: dict[str, Any] | None = None, **triton: Any
) -> Iterator[list[Any]]:
    """Modules of kernels over this language, imported anew, and forgotten afterwards.

    Parameters
    ----------
    compiler : what `triton.compiler` has.
    triton : what `triton` has besides.
    """
    parts = {name: types.ModuleType(name) for name in ("triton", "triton.language", "triton.compiler")}
    vars(parts["triton.language"]).update(LANGUAGE)
    vars(parts["triton.compiler"]).update(compiler or {})
    vars(parts["triton"]).update(
        language=parts["triton.language"], cdiv=lambda a, b: -(-a // b),
        next_power_of_2=lambda n: 1 << (n - 1).bit_length(),
        jit=lambda function=None, **_: Kernel if function is None else Kernel(function), **triton,
    )  # fmt: skip
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with monkeypatch.context() as patch:
        for name, module in parts.items():
            patch.setitem(sys.modules, name, module)
        made = [importlib.import_module(name) for name in names]
    yield made
    for name in names:
        sys.modules.pop(name, None)
