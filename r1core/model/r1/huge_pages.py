"""Fresh memory in large pages: a gradient of all experts is touched once, and small pages cost more than its products.

On Linux only, by `madvise(2)`; elsewhere, and where the kernel says no, memory stays as it is.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache

import torch

LEAST = 8 << 20
"""Bytes from which it pays: below, the allocator hands out memory that was touched before."""
_PAGE = mmap.PAGESIZE


def empty_like(model: torch.Tensor) -> torch.Tensor:
    """An uninitialised tensor, in large pages where it is big and on a CPU."""
    tensor = torch.empty_like(model, memory_format=torch.contiguous_format)
    size = tensor.numel() * tensor.element_size()
    advise = _madvise()
    if tensor.device.type == "cpu" and size >= LEAST and advise is not None:
        start = -(-tensor.data_ptr() // _PAGE) * _PAGE
        end = (tensor.data_ptr() + size) // _PAGE * _PAGE
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ctypes.c_int(mmap.MADV_HUGEPAGE))
    return tensor


@cache
def _madvise() -> ctypes._NamedFuncPointer | None:
    if not sys.platform.startswith("linux") or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    return ctypes.CDLL(None).madvise
