"""Several processes on one machine's cores: forked, so that weights and rows are shared and nothing is built twice.

Two one-thread processes do in a second what two threads of one process need up to twice as long for on short rows,
because threads wait for each other after every small product. Forking is safe here only with one compute thread and
without CUDA; elsewhere (macOS, GPUs) one process runs.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch

from r1core.api import R1Error, UserError
from r1core.model.limits import worthwhile
from r1core.model.probe import Compute

GOODBYE = 60.0
"""Seconds that a process which has done its work gets to end."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h

Item = TypeVar("Item")
Result = TypeVar("Result")


def how_many(compute: Compute, asked: int, *, parameters: int, tokens: int, most: int) -> int:
    """Processes to use for this much work, which splits into at most `most` parts.

    Parameters
    ----------
    asked : `model.processes`; a number is obeyed, 0 leaves it to `compute` and to whether it pays.

    Raises
    ------
    UserError : when several are asked for where a process cannot be forked.
    """
    if sys.platform != "linux" or torch.cuda.is_initialized():
        if asked > 1:
            raise UserError(
                f"model.processes = {asked}: only on Linux and without a GPU", fix="set model.processes = 1"
            )
        return 1
    return worthwhile(compute.processes, asked, parameters=parameters, tokens=tokens, most=most)


@contextmanager
def ranks(world: int, body: Callable[[], object]) -> Iterator[None]:
    """Run `body` as ranks 1 to `world - 1` in forked children while the caller is rank 0 (torch.distributed, gloo).

    The ranks meet through a private file and talk on the loopback interface only. On leaving, the children have ended:
    by themselves after a success, by being stopped after an error.

    Raises
    ------
    R1Error : when a child was ended; what `body` raises in a child is raised here where it explains rank 0's error.
    """
    if world == 1:
        yield
        return
    before, crew, well = dict(os.environ), list[_Member](), False
    with _one_thread(), TemporaryDirectory(prefix="r1core-ranks-") as place:
        leave_group()  # what accelerate remembers of earlier work
        try:
            for rank in range(1, world):
                crew.append(_start(partial(_as_rank, rank, world, place, body)))
            try:
                _join_group(0, world, place)
                yield
            except RuntimeError as error:  # gloo's word for a rank that is gone: what that one said, says more
                if (cause := _cause(crew)) is not None:
                    raise cause from error
                raise
            for member in crew:
                member.result()
            well = True
        finally:
            _end(crew, well)
            leave_group()
            os.environ.clear()
            os.environ.update(before)


def spread(
    processes: int, work: Callable[[Item], Result], items: Sequence[Item], told: Callable[[int], None]
) -> list[Result]:
    """`work` on every item, the items dealt out over the processes; results in the order of the items.

    The caller does its own share and is `told` how many items are done by now, the others' supposed alike.

    Raises
    ------
    R1Error : when a child was ended; whatever `work` raises in a child is raised here.
    """
    results: list[Result | None] = [None] * len(items)
    crew, well = list[_Member](), False
    with _one_thread() if processes > 1 else nullcontext():
        try:
            for rank in range(1, processes):
                crew.append(_start(partial(_each, work, items[rank::processes])))
            for index in range(0, len(items), processes):
                results[index] = work(items[index])
                told(min(index + processes, len(items)))
            for rank, member in enumerate(crew, 1):
                results[rank::processes] = member.result()
            well = True
        finally:
            _end(crew, well)
    return results  # type: ignore[return-value]  # every place has been filled


@dataclass(frozen=True, slots=True)
class _Member:
    """A forked child and the end of the pipe that its result or its error comes through."""

    process: BaseProcess
    pipe: Connection

    def result(self) -> Any:
        """Wait for what the child's function returned; raise what it raised."""
        try:
            value, error = self.pipe.recv()
        except (EOFError, OSError) as gone:
            self.process.join()
            code = self.process.exitcode or 0
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise R1Error(f"a process that shared the work was ended ({how}); start the command again") from gone
        if error is not None:
            raise error
        return value


def _cause(crew: Sequence[_Member]) -> Exception | None:
    """Why a rank is gone: an error of its own before a death, a death before the errors that others met through it."""
    said: list[Exception] = []
    for member in crew:
        if member.pipe.poll(timeout=1):  # a child that is well waits for rank 0 and says nothing
            try:
                member.result()
            except Exception as error:
                said.append(error)
    lost = [error for error in said if isinstance(error.__cause__, EOFError | OSError)]
    own = [error for error in said if not isinstance(error, RuntimeError) and error not in lost]
    return next(iter([*own, *lost, *said]), None)


def _start(body: Callable[[], object]) -> _Member:
    """Fork a child that runs `body` with one thread and sends back what comes of it."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its children
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed parent leaves nobody who holds the lock
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        torch.set_num_threads(1)  # mends torch's pool, which a fork leaves broken; two threads at once would find none
        try:
            sender.send((body(), None))
        except Exception as error:
            error.add_note(f"In a forked process:\n{traceback.format_exc()}")  # tracebacks do not travel
            sender.send((None, _portable(error)))

    gc.collect()
    gc.freeze()  # a process group of the parent's that the child's collector frees would wait for threads it has not
    try:
        with warnings.catch_warnings():
            # Python warns of forking beside threads; the only ones here draw progress, and a child draws none.
            warnings.simplefilter("ignore", DeprecationWarning)
            process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
            process.start()
    finally:
        gc.unfreeze()
        sender.close()
    return _Member(process, receiver)


def _portable(error: Exception) -> Exception:
    """The error itself where it can be rebuilt from its pickle, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return R1Error(f"{type(error).__name__}: {error}")
    return error


def _each(work: Callable[[Item], Result], share: Sequence[Item]) -> list[Result]:
    return [work(item) for item in share]


def _as_rank(rank: int, world: int, place: str, body: Callable[[], object]) -> None:
    _join_group(rank, world, place)
    body()
    leave_group()


def _join_group(rank: int, world: int, place: str) -> None:
    """Become a rank, and tell accelerate so by the variables of a launcher."""
    # The host's own name need not resolve; unasked, accelerate gives every process all the threads.
    os.environ.update({"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"})
    os.environ.update({"WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": "0"})
    store = torch.distributed.FileStore(f"{place}/store", world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One compute thread, here and in what is forked inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _end(crew: Sequence[_Member], well: bool) -> None:
    for member in crew:
        if well:
            member.process.join(timeout=GOODBYE)
        if member.process.is_alive():
            member.process.terminate()
            member.process.join()
        member.pipe.close()


def leave_group() -> None:
    """Leave the process group and make accelerate forget it, so that later stages stand alone again."""
    from accelerate.state import AcceleratorState

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)
