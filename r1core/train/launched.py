"""One run by several processes that a launcher started (`torchrun`), on one machine or many.

The first process leads: it does all that the command does, and tells the others when there is a training to join.
They write nothing but their part of a checkpoint, print nothing, and leave when the first one has ended. What is said
goes through the launcher's store, where nobody waits for a process that is gone; work that goes wrong in one ends all
by the launcher.

Not covered: preparation and evaluation on several machines (the first process does them), machines that do not share
the run directory.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch

from r1core.api import JSON, R1Error, UserError

PATIENCE = timedelta(days=30)
"""How long the others wait for the first process, which may prepare and evaluate for hours."""
GRACE = timedelta(seconds=20)
"""How long another process keeps an error to itself, in case the first one has the same."""
MEETING = timedelta(days=1)
"""How long a process waits for another in between, for instance while that one writes a large checkpoint."""


class Crew:
    """This process among those that the launcher started; joins them on construction.

    Raises
    ------
    UserError : when a machine has fewer GPUs than processes, or the launcher does not say where they meet.
    """

    def __init__(self) -> None:
        if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
            raise UserError(
                f"WORLD_SIZE = {os.environ['WORLD_SIZE']}, as a launcher sets it, and no {', '.join(missing)}",
                fix="start r1core by torchrun, or alone with WORLD_SIZE unset",
            )
        if torch.cuda.is_available():
            _take_gpu(int(os.environ.get("LOCAL_RANK", "0")))
        store, self.rank, self.world = next(torch.distributed.rendezvous("env://"))
        self._said, self._number = torch.distributed.PrefixStore("r1core/said", store), 0
        torch.distributed.init_process_group(
            "nccl" if torch.cuda.is_available() else "gloo",
            store=torch.distributed.PrefixStore("r1core/group", store),
            rank=self.rank,
            world_size=self.world,
        )
        self._meeting = torch.distributed.new_group(backend="gloo", timeout=MEETING)

    def exchange(self, value: Any) -> list[Any]:
        """Every process's value, in order of ranks; each of them has to ask."""
        found: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(found, value, group=self._meeting)
        return found

    @contextmanager
    def leading(self) -> Iterator[None]:
        """As the first process: let the others go at the end, however it comes."""
        end: dict[str, JSON] = {"end": 1, "error": ""}
        try:
            yield
            end = {"end": 0, "error": ""}
        except R1Error as error:
            end = {"end": error.exit_code, "error": str(error)}
            raise
        finally:
            self.say(end)

    @contextmanager
    def following(self) -> Iterator[None]:
        """As another process: leave an error to the first one where that has the same."""
        try:
            yield
        except R1Error as error:
            with contextlib.suppress(RuntimeError):  # it has not ended, and knows nothing of this
                said = self.hear(GRACE)
                if said.get("error") == str(error):
                    raise SystemExit(said["end"]) from error
            raise

    def say(self, message: JSON) -> None:
        """Tell the others, without waiting for them."""
        self._said.set(str(self._number), json.dumps(message))
        self._number += 1

    def hear(self, patience: timedelta = PATIENCE) -> JSON:
        """Wait for what the first process says next.

        Raises
        ------
        RuntimeError : when it says nothing for so long.
        """
        key = str(self._number)
        self._said.wait([key], patience)
        self._number += 1
        return json.loads(self._said.get(key))

    def leave(self) -> None:
        """Leave the group, so that what comes after stands alone."""
        from r1core.model.processes import leave_group

        leave_group()


def _take_gpu(index: int) -> None:
    there = torch.cuda.device_count()
    if index >= there:
        raise UserError(
            f"process {index} of this machine has no GPU: {there} are there",
            fix=f"start at most {there} a machine: torchrun --nproc-per-node {there}",
        )
    torch.cuda.set_device(index)
