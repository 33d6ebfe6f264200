"""Launches of Triton kernels whose compiled form is kept here, past the binding that Triton does anew in every launch.

Binding and hashing all arguments takes the host longer than many of these kernels take the GPU. A compiled kernel
stands for other arguments too where everything is the same that Triton compiles for: dtypes, which addresses are
multiples of 16 bytes, which numbers are 1, are multiples of 16 or fit 32 bits, constants, and the device. Anything
else about the arguments is seen as new, and goes through Triton. So do other makes of GPU, which compile for more than
that, and `torch.compile`, which reads the launches itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from triton import JITFunction
from triton.compiler import CompiledKernel

ALIGNED = 16
"""Bytes of an address, and a number, a multiple of which Triton compiles for."""
NARROW = 2**31
"""Where numbers stop fitting 32 bits."""


class Kernel:
    """A kernel that reads no global values; its parameters are tensors, then numbers (int or float), then constants.

    Parameters
    ----------
    source : what `triton.jit` made.
    options : how it is compiled, `num_warps` and `num_stages`.
    """

    def __init__(self, source: Any, **options: int) -> None:
        self._source, self._options = source, options
        self._keeps = isinstance(source, JITFunction) and torch.version.hip is None
        self._kept: dict[tuple[object, ...], CompiledKernel] = {}

    def __call__(
        self,
        grid: tuple[int, int, int],
        tensors: Sequence[torch.Tensor],
        numbers: Sequence[float] = (),
        constants: tuple[float, ...] = (),
    ) -> None:
        """Launch it on the current device and stream."""
        if not self._keeps or torch.compiler.is_compiling():
            self._source[grid](*tensors, *numbers, *constants, **self._options)
            return
        at = [each.data_ptr() for each in tensors]
        key = (
            torch.cuda.current_device(),
            constants,
            *[each.dtype for each in tensors],
            *[each % ALIGNED == 0 for each in at],
            *[-1 if each == 1 else (each % ALIGNED == 0) + 2 * (-NARROW <= each < NARROW) for each in numbers],
        )
        kept = self._kept.get(key)
        if kept is not None:
            kept[grid](*at, *numbers, *constants)  # a kernel takes addresses as it takes tensors
            return
        made = self._source[grid](*tensors, *numbers, *constants, **self._options)
        if isinstance(made, CompiledKernel):
            self._kept[key] = made


def parts(count: int, size: int) -> int:
    """Parts of `size` that hold `count`; Triton's own function costs the host as much as a launch here does."""
    return -(-count // size)


def padded(count: int) -> int:
    """The power of two from `count` on, which is 1 or more."""
    return 1 << (count - 1).bit_length()
