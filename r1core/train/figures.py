"""Figures of a step on their way from the device to the host."""

from __future__ import annotations

import torch


class OnTheWay:
    """A small tensor whose copy to the host begins now and is waited for only when it is read."""

    def __init__(self, values: torch.Tensor) -> None:
        cuda = values.device.type == "cuda"
        self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True) if cuda else values
        self._event = torch.cuda.Event() if cuda else None
        if self._event is not None:
            self._host.copy_(values, non_blocking=True)
            self._event.record()  # of this moment: what is launched later is not waited for

    def read(self) -> list[float]:
        """The values."""
        if self._event is not None:
            self._event.synchronize()
        return list(map(float, self._host.tolist()))
