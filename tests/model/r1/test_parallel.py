"""The parallel plans of the configuration, applied by transformers to two gloo processes: the numbers of one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from transformers.distributed import DistributedConfig

from r1core.model.processes import ranks
from r1core.model.r1 import R1ForCausalLM
from r1core.testing.tiny_r1 import model, tokens

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
CLOSE = 1e-6
SHARED: dict[str, dict[str, Any]] = {
    "tensor parallel": {"tp_size": 2},
    "expert parallel": {"tp_size": 2, "ep_size": 2},
    "expert parallel, outputs summed": {"tp_size": 2, "ep_size": 2, "ep_implementation": "all_reduce"},
}
"""Plans in which all processes see the same batch."""
HELD = {"tensor parallel": (16, 16, 32)}
"""Of the gate and up stack (16, 32, 32): every expert's half; else half of the experts."""


def whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def passed(made: R1ForCausalLM, ids: torch.Tensor) -> tuple[torch.Tensor, float, dict[str, torch.Tensor]]:
    """Logits, then the loss with the routers' in it, and all gradients of it."""
    with torch.no_grad():
        logits = whole(made.eval()(ids).logits)
    loss = made.train()(ids, labels=ids).loss
    loss.backward()
    named = dict(made.named_parameters())
    gradients = {name: whole(one.grad).clone() for name, one in named.items() if one.grad is not None}
    return logits, float(loss.detach()), gradients


def continued(made: R1ForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    """Token by token through the cache, past the window."""
    return made.eval().generate(ids[:1, :6], max_new_tokens=12, do_sample=False, pad_token_id=0)


def same(found: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == right.keys()
    for name, value in right.items():
        assert torch.allclose(found[name], value, rtol=1e-4, atol=CLOSE), name


def loaded(folder: Path, plan: Mapping[str, Any]) -> R1ForCausalLM:
    made: R1ForCausalLM = AutoModelForCausalLM.from_pretrained(folder, distributed_config=DistributedConfig(**plan))
    return made


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "summed" in name else []) for name in SHARED]
)
def test_a_plan_gives_the_logits_loss_and_gradients_of_one_process(name: str, tmp_path: Path) -> None:
    alone = model()
    alone.save_pretrained(tmp_path / "alone")
    ids = tokens(4, 30)

    def body() -> tuple[torch.Tensor, float, dict[str, torch.Tensor]]:
        made = loaded(tmp_path / "alone", SHARED[name])
        stack = made.feed_forwards()[0].experts.gate_up_proj
        assert isinstance(stack, DTensor)
        assert tuple(stack.to_local().shape) == HELD.get(name, (8, 32, 32))
        assert torch.equal(continued(made, ids), continued(alone, ids))
        found = passed(made, ids)
        made.save_pretrained(tmp_path / "again")
        return found

    with ranks(2, lambda: body() and None):
        logits, loss, gradients = body()
    wanted, right, slopes = passed(alone, ids)
    assert torch.allclose(logits, wanted, atol=CLOSE)
    assert loss == pytest.approx(right, rel=1e-5)
    same(gradients, slopes)
    same(AutoModelForCausalLM.from_pretrained(tmp_path / "again").state_dict(), alone.state_dict())


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.parametrize("ep_size", [1, 2])
def test_processes_with_batches_of_their_own_average_their_gradients(ep_size: int, tmp_path: Path) -> None:
    """The library's FSDP2; with `ep_size` experts stay whole and tokens travel to the process that has them."""
    alone = model()
    alone.save_pretrained(tmp_path)
    ids = tokens(4, 30)

    def body() -> tuple[torch.Tensor, float, dict[str, torch.Tensor]]:
        made = loaded(tmp_path, {"fsdp_size": 2, "ep_size": ep_size})
        return passed(made, ids[torch.distributed.get_rank() :: 2])

    with ranks(2, lambda: body() and None):
        logits, loss, gradients = body()
    halves = []
    for rank in (0, 1):
        alone.zero_grad()
        halves.append(passed(alone, ids[rank::2]))
    assert torch.allclose(logits, halves[0][0], atol=CLOSE)
    assert loss == pytest.approx(halves[0][1], rel=1e-5)
    same(gradients, {name: (one + halves[1][2][name]) / 2 for name, one in halves[0][2].items()})
