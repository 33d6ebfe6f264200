"""Work in forked processes: results in order, errors raised where the caller is, nobody left behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from r1core.api import PluginError, R1Error, UserError
from r1core.model.probe import Compute
from r1core.model.processes import how_many, ranks, spread

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
FOUR = Compute("cpu", "fp32", 1, 0.0, processes=4)
Left = Callable[[], list[psutil.Process]]


@pytest.fixture
def left() -> Left:
    """The processes of this one that the test has started and not ended."""
    before = psutil.Process().children()
    return lambda: [child for child in psutil.Process().children() if child not in before]


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("items", [0, 1, 7])
def test_results_come_in_the_order_of_the_items(processes: int, items: int, left: Left) -> None:
    told: list[int] = []
    asked = [f"item {n}" for n in range(items)]
    found = spread(processes, lambda item: (item, os.getpid()), asked, told.append)
    assert [item for item, _ in found] == asked
    assert len({pid for _, pid in found}) == min(processes, items)
    assert told == sorted(told)
    assert not items or told[-1] == items
    assert left() == []


def test_an_error_in_another_process_is_raised_here(left: Left) -> None:
    parent = os.getpid()

    def work(item: int) -> int:
        if os.getpid() != parent:
            raise UserError(f"row {item}: broken", fix="mend it")
        return item

    with pytest.raises(UserError, match="row 1: broken"):
        spread(2, work, [0, 1, 2], lambda done: None)
    assert left() == []


def test_a_process_that_is_killed_is_named_as_such() -> None:
    parent = os.getpid()

    def work(item: int) -> int:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    with pytest.raises(R1Error, match=r"shared the work was ended \(signal 9\); start the command again"):
        spread(2, work, [0, 1, 2], lambda done: None)


def test_the_callers_own_error_ends_the_others(left: Left) -> None:
    def work(item: int) -> int:
        if item == 0:
            raise KeyboardInterrupt
        signal.pause()
        return item

    with pytest.raises(KeyboardInterrupt):
        spread(2, work, [0, 1], lambda done: None)
    assert left() == []


@pytest.mark.slow
def test_ranks_sum_over_gloo_and_leave_everything_as_it_was(tmp_path: Path, left: Left) -> None:
    threads, environment = torch.get_num_threads(), dict(os.environ)

    def summed() -> float:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        assert accelerator.num_processes == 3
        assert torch.get_num_threads() == 1
        return float(accelerator.reduce(torch.tensor(2.0**accelerator.process_index), "sum"))

    for _ in range(2):  # a second group in the same process
        with ranks(3, summed):
            assert summed() == 7.0
        assert not torch.distributed.is_initialized()
    assert (torch.get_num_threads(), dict(os.environ)) == (threads, environment)
    assert left() == []


def test_a_rank_that_is_killed_is_said_to_be() -> None:
    from accelerate import Accelerator

    def together() -> None:
        accelerator = Accelerator(cpu=True)
        if accelerator.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        accelerator.reduce(torch.ones(1), "sum")

    with pytest.raises(R1Error, match=r"was ended \(signal 9\); start the command again"), ranks(2, together):
        together()
    assert not torch.distributed.is_initialized()


def test_the_rank_that_failed_is_heard_above_those_that_lost_it(left: Left) -> None:
    from accelerate import Accelerator

    def together() -> None:
        accelerator = Accelerator(cpu=True)
        if accelerator.process_index == 2:
            raise PluginError("p", "reward", "no such column")
        accelerator.reduce(torch.ones(1), "sum")

    with pytest.raises(PluginError, match="plugin 'p' failed in hook 'reward'") as raised, ranks(3, together):
        together()
    assert any("In a forked process" in note for note in raised.value.__notes__)
    assert left() == []


def test_a_childs_own_runtime_error_is_not_taken_for_a_death() -> None:
    def broken() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"), ranks(2, broken):
        pass


def test_an_earlier_accelerator_does_not_stand_in_the_way() -> None:
    from accelerate import Accelerator

    assert Accelerator(cpu=True).num_processes == 1
    with ranks(2, lambda: Accelerator(cpu=True)):
        assert Accelerator(cpu=True).num_processes == 2


def test_a_rank_that_fails_alone_is_no_success() -> None:
    def broken() -> None:
        raise ValueError("only here")

    with pytest.raises(ValueError, match="only here"), ranks(2, broken):
        pass


def test_errors_travel_with_what_they_carry() -> None:
    parent = os.getpid()

    class Local(Exception):
        """Cannot be pickled: it has no module-level name."""

    def failing(error: Exception):  # type: ignore[no-untyped-def]
        def work(item: int) -> int:
            if os.getpid() != parent:
                raise error
            return item

        return work

    with pytest.raises(PluginError, match="plugin 'p' failed in hook 'h': x") as raised:
        spread(2, failing(PluginError("p", "h", "x")), [0, 1], lambda done: None)
    assert (raised.value.plugin, raised.value.hook) == ("p", "h")
    with pytest.raises(R1Error, match="Local: why"):
        spread(2, failing(Local("why")), [0, 1], lambda done: None)


def test_as_many_as_asked_as_many_as_pay() -> None:
    small, large = {"parameters": 10**5, "tokens": 10**4}, {"parameters": 10**8, "tokens": 10**5}
    assert how_many(FOUR, 0, **small, most=16) == 1
    assert how_many(FOUR, 0, **large, most=16) == 4
    assert how_many(FOUR, 0, **large, most=3) == 3
    assert how_many(FOUR, 2, **small, most=16) == 2
    assert how_many(FOUR, 8, **small, most=1) == 1


def test_several_are_refused_where_forking_is_not_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert how_many(FOUR, 0, parameters=10**9, tokens=10**9, most=16) == 1
    with pytest.raises(UserError, match="only on Linux") as refused:
        how_many(FOUR, 2, parameters=1, tokens=1, most=16)
    assert refused.value.fix == "set model.processes = 1"
