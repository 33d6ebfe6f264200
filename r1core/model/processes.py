"""Several processes on one machine's cores: forked, so that weights and rows are shared and nothing is built twice.

Two one-thread processes do in a second what two threads of one process need up to twice as long for on short rows,
because threads wait for each other after every small product. Forking is safe here only with one compute thread and
without CUDA; elsewhere (macOS, GPUs) one process runs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from r1core.api import R1Error

WORTH_IT = 5e11
"""Parameters times tokens below which one process is done before others have started (about ten seconds of work)."""
GOODBYE = 60.0
"""Seconds that a process which has done its work gets to end."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def worthwhile(processes: int, parameters: int, tokens: int, most: int) -> int:
    """How many of `processes` to use for this much work that can be split into at most `most` parts."""
    if parameters * tokens < WORTH_IT or not can_fork():
        return 1
    return max(1, min(processes, most))


def can_fork() -> bool:
    """Whether this process can be forked and go on computing in the child."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()


@contextmanager
def ranks(world: int, body: Callable[[], object]) -> Iterator[None]:
    """Run `body` as ranks 1 to `world - 1` in forked children while the caller is rank 0 (torch.distributed, gloo).

    On leaving, the children have ended: by themselves after a success, by being stopped after an error.

    Raises
    ------
    R1Error : when a child was ended, or ended with an error although rank 0 succeeded.
    """
    if world == 1:
        yield
        return
    group = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    # The host's own name need not resolve; unasked, accelerate gives every process all the threads.
    group |= {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    before = dict(os.environ)
    with _one_thread():
        children = [_fork(partial(_as_rank, rank, group, body)) for rank in range(1, world)]
        os.environ.update(group, RANK="0", LOCAL_RANK="0")
        try:
            yield
            for child in children:
                child.join(timeout=GOODBYE)
            if any(child.exitcode != 0 for child in children):
                raise R1Error("a process that shared the training did not end well; start the command again")
        except RuntimeError as error:  # gloo's word for a rank that is gone
            raise _explained(error, children) from error
        finally:
            _end(children)
            _leave_group()
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
    pipes: list[Connection] = []
    children: list[BaseProcess] = []
    with _one_thread() if processes > 1 else nullcontext():
        try:
            for rank in range(1, processes):
                receiver, sender = multiprocessing.Pipe(duplex=False)
                children.append(_fork(partial(_send, sender, work, items[rank::processes])))
                sender.close()
                pipes.append(receiver)
            for index in range(0, len(items), processes):
                results[index] = work(items[index])
                told(min(index + processes, len(items)))
            for rank, pipe in enumerate(pipes, 1):
                results[rank::processes] = _received(pipe)
        finally:
            _end(children)
    return results  # type: ignore[return-value]  # every place has been filled


def _send(sender: Connection, work: Callable[[Item], Result], share: Sequence[Item]) -> None:
    try:
        sender.send(([work(item) for item in share], None))
    except Exception as error:  # carried to the caller, who raises it
        sender.send((None, error))


def _received(pipe: Connection) -> Any:
    try:
        results, error = pipe.recv()
    except EOFError as gone:
        raise R1Error("a process that shared the work was ended; start the command again") from gone
    if error is not None:
        raise error
    return results


def _as_rank(rank: int, group: Mapping[str, str], body: Callable[[], object]) -> None:
    os.environ.update(group, RANK=str(rank), LOCAL_RANK=str(rank))
    try:
        body()
        _leave_group()
    except Exception:  # rank 0 meets the same error and says it; a second traceback helps nobody
        os._exit(1)


def _explained(error: RuntimeError, children: Sequence[BaseProcess]) -> Exception:
    """What to raise for an error of rank 0: its own, unless a child that was ended from outside is behind it."""
    for child in children:
        child.join(timeout=1)
    killed = [child.exitcode for child in children if child.exitcode is not None and child.exitcode < 0]
    if not killed or isinstance(error, R1Error):
        return error
    return R1Error(f"a process that shared the training was ended (signal {-killed[0]}); start the command again")


def _fork(target: Callable[[], None]) -> BaseProcess:
    def run() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its children
        target()

    with warnings.catch_warnings():
        # Python warns of forking beside threads; the only ones here draw progress, and a child draws none.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = multiprocessing.get_context("fork").Process(target=run, daemon=True)
        child.start()
    return child


@contextmanager
def _one_thread() -> Iterator[None]:
    """One compute thread, here and in what is forked inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _end(children: Sequence[BaseProcess]) -> None:
    for child in children:
        if child.is_alive():
            child.terminate()
        child.join()


def _leave_group() -> None:
    """Leave the process group and make accelerate forget it, so that later stages stand alone again."""
    from accelerate.state import AcceleratorState

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
