"""The training loop against a naive per-row loop in plain torch, against itself interrupted, and on two ranks."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from r1core.api import R1Error
from r1core.data.packing import pack_rows
from r1core.recipe.strategy import Role, Strategy
from r1core.train.loop import NonFiniteLoss, Trainer, hash_seed
from r1core.train.optimizer import Schedule

PACKINGS = ("shared_prefix", "best_fit", "padded", "none")

VARIANTS = (
    {"packing": "none"},
    {"packing": "shared_prefix"},
    {"packing": "best_fit"},
    {"packing": "shared_prefix", "micro_batch_tokens": 17},
    {"packing": "best_fit", "micro_batch_tokens": 17},
    {"packing": "padded"},
    {"packing": "padded", "micro_batch_tokens": 20, "gradient_checkpointing": True},
    {"packing": "best_fit", "gradient_checkpointing": True},
    {"packing": "shared_prefix", "gradient_checkpointing": True, "micro_batch_tokens": 17},
)
"""Ways to compute one and the same step."""


def naive_gradient(run: Trainer, step: int) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradient of one step: each row alone, full logits, one token-weighted mean."""
    loss, tokens = torch.zeros(()), 0
    for row in (run.rows[i] for i in run.order.rows(step)):
        ids = torch.tensor([row.prompt + row.response])
        labels = torch.tensor([[-100] * len(row.prompt) + list(row.response)])
        with run.layers.using(pack_rows([row], run.kinds, torch.float32).features):
            logits = run.model(input_ids=ids).logits
        loss = loss + torch.nn.functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum")
        tokens += len(row.response)
    return float(loss.detach() / tokens), list(torch.autograd.grad(loss / tokens, run.trainable))


@pytest.mark.parametrize("packing", PACKINGS)
def test_one_steps_gradient_is_that_of_the_naive_loop(tiny: ModuleType, packing: str) -> None:
    run = tiny.trainer(packing=packing, max_grad_norm=1e9)
    for parameter in run.trainable:  # away from the zero start, so that every parameter has a gradient
        parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 20
    loss, expected = naive_gradient(run, 0)
    taken: list[torch.Tensor] = []
    run.optimizer.register_step_pre_hook(lambda *_: taken.extend(p.grad.clone() for p in run.trainable))
    metrics = tiny.one_step(run)
    assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
    for ours, theirs in zip(taken, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    norm = math.sqrt(sum(float(g.square().sum()) for g in expected))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_the_gradient_is_clipped_to_its_norm(tiny: ModuleType) -> None:
    run = tiny.trainer(max_grad_norm=0.01)
    taken: list[torch.Tensor] = []
    run.optimizer.register_step_pre_hook(lambda *_: taken.extend(p.grad.clone() for p in run.trainable))
    assert tiny.one_step(run)["grad_norm"] > 0.01
    assert float(torch.stack([g.square().sum() for g in taken]).sum().sqrt()) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("loss", [False, True], ids=["sft", "with the layer's own loss"])
def test_how_a_batch_is_computed_changes_rounding_only(tiny: ModuleType, loss: bool) -> None:
    ends = []
    for how in VARIANTS:
        run = tiny.trainer(**how, steps=3, loss=loss, schedule="constant", max_grad_norm=1e9)
        run.optimizer = torch.optim.SGD(
            run.optimizer.param_groups, lr=0.01, fused=True
        )  # Adam would amplify rounding near zero
        for group in run.optimizer.param_groups:
            group["base_lr"] = 0.05
        run.run()
        ends.append(run.trainable)
    for how, end in zip(VARIANTS, ends, strict=True):
        for one, other in zip(end, ends[0], strict=True):
            assert torch.allclose(one, other, atol=1e-6, rtol=1e-5), how


def test_the_order_of_rows_is_a_pure_function_and_an_epoch_holds_each_once(tiny: ModuleType) -> None:
    one, two = tiny.trainer(), tiny.trainer()
    one.step(0)
    torch.manual_seed(99)
    orders = [[[run.rows[i].id for i in run.order.rows(step)] for step in range(run.total)] for run in (one, two)]
    assert orders[0] == orders[1]
    assert one.total == 6
    first, second = ([i for batch in orders[0][a : a + 3] for i in batch] for a in (0, 3))
    everything = sorted(row.id for row in one.rows)
    assert sorted(first) == sorted(second) == everything
    assert first != second
    assert [len(batch) for batch in orders[0]] == [4, 4, 3, 4, 4, 3]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, *[1 - k / 8 for k in range(8)]]),
        ("cosine", [0.5, 1, *[math.cos(math.pi * k / 16) ** 2 for k in range(8)]]),
    ],
)
def test_schedules_follow_their_closed_form(shape: str, expected: list[float]) -> None:
    schedule = Schedule(shape, total=10, warmup=2)
    assert [schedule.factor(step) for step in range(10)] == pytest.approx(expected)


def test_the_learning_rates_reach_the_optimiser(tiny: ModuleType) -> None:
    seen: list[tuple[float, ...]] = []
    told: list[float] = []
    run = tiny.trainer(
        on_step=lambda step, metrics: told.append(metrics["learning_rate"]), learning_rate=0.02, lora_plus_ratio=4,
        layer_learning_rate=0.005, schedule="linear", warmup_fraction=0.5,
    )  # fmt: skip
    run.optimizer.register_step_pre_hook(lambda *_: seen.append(tuple(g["lr"] for g in run.optimizer.param_groups)))
    run.run()
    factors = [1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3]
    assert [s[0] for s in seen] == pytest.approx([0.02 * f for f in factors])
    assert [s[1] for s in seen] == pytest.approx([0.08 * f for f in factors])
    assert [s[2] for s in seen] == pytest.approx([0.005 * f for f in factors])
    b_matrices = {id(p) for name, p in run.model.named_parameters() if "lora_B" in name}
    assert {id(p) for p in run.optimizer.param_groups[1]["params"]} == b_matrices
    assert told == pytest.approx([s[0] for s in seen])


def test_training_lowers_the_loss_and_leaves_the_base_alone(tiny: ModuleType) -> None:
    losses: list[float] = []
    run = tiny.trainer(
        on_step=lambda step, metrics: losses.append(metrics["loss"]),
        steps=40,
        learning_rate=0.05,
        batch_size=11,
        schedule="constant",
    )
    frozen = {n: p.clone() for n, p in run.model.named_parameters() if not p.requires_grad}
    run.run()
    assert losses[-1] < losses[0] - 0.2
    assert all(torch.equal(p, frozen[n]) for n, p in run.model.named_parameters() if n in frozen)
    assert not run.model.training


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("stop", [1, 4])
def test_a_resumed_run_ends_on_the_same_bits(tiny: ModuleType, dropout: float, stop: int) -> None:
    saved: dict[int, Any] = {}
    whole = tiny.trainer(dropout=dropout)
    whole.run()

    class Killed(Exception):
        pass

    def save(step: int, groups: Any, state: dict[str, Any]) -> None:
        saved[step] = (groups, state)
        if step == stop:
            raise Killed

    with pytest.raises(Killed):
        tiny.trainer(save, dropout=dropout, checkpoint_every=1).run()
    torch.manual_seed(1234)  # a new process stands elsewhere
    steps: list[int] = []
    resumed = tiny.trainer(on_step=lambda step, metrics: steps.append(step), dropout=dropout)
    resumed.resume(*saved[stop])
    resumed.run()
    expected, found = tiny.flat(whole.tensors()), tiny.flat(resumed.tensors())
    assert {name.partition("/")[0] for name in expected} == {"adapter", "layers", "optimizer"}
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert steps == list(range(stop + 1, 7))


def test_dropout_is_drawn_anew_each_step() -> None:
    assert len({hash_seed(seed, step, rank) for seed in range(20) for step in range(50) for rank in range(2)}) == 2000
    assert all(0 <= hash_seed(seed, 3) < 2**63 for seed in range(20))


def test_checkpoints_come_as_often_as_asked_and_at_the_end(tiny: ModuleType) -> None:
    steps: list[int] = []
    tiny.trainer(lambda step, groups, state: steps.append(step), checkpoint_every=4).run()
    assert steps == [4, 6]


@pytest.mark.parametrize("where", ["adapter", "layer"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_loss_stops_before_the_optimiser(tiny: ModuleType, where: str, value: float) -> None:
    saved: list[int] = []
    run = tiny.trainer(lambda step, groups, state: saved.append(step), checkpoint_every=1)
    run.step(0)
    poisoned = run.trainable[1] if where == "adapter" else run.layers.layers[0].gate
    with torch.no_grad():
        poisoned[0] = value
    before = {name: tensor.clone() for name, tensor in tiny.flat(run.tensors()).items()}
    run.done = 1
    with pytest.raises(NonFiniteLoss, match=r"step 2: loss (nan|inf).*rows row-\d+"):
        run.run()
    after = tiny.flat(run.tensors())
    assert all(torch.equal(before[n].nan_to_num(5), after[n].nan_to_num(5)) for n in before)
    assert saved == []


def test_a_run_that_would_train_nothing_stops(tiny: ModuleType) -> None:
    run = tiny.trainer(layer=False)
    with torch.no_grad():
        run.model.get_input_embeddings().weight.zero_()
    with pytest.raises(R1Error, match="zero gradient: nothing would be trained"):
        run.run()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What two processes of a launcher reached, by packing and way of sharing (see `tiny_training.main`)."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).parent / "tiny_training.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--rdzv_backend=c10d",
               "--rdzv_endpoint=127.0.0.1:0", str(script), str(folder), *PACKINGS]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return {packing: torch.load(folder / f"{packing}.pt", weights_only=True) for packing in PACKINGS}


WAYS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp2": {},
    "accumulated": {"micro_batch_tokens": 12, "loss": True},
    "full": {"strategy": Strategy(norms=Role(mode="full", learning_rate=1e-2))},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("packing", PACKINGS)
def test_two_ranks_end_where_one_does(tiny: ModuleType, two_ranks: dict[str, Any], packing: str, way: str) -> None:
    found, losses = two_ranks[packing][way], []
    single = tiny.trainer(data=tiny.rows(9), packing=packing, **WAYS[way])
    single.on_step = lambda step, told: losses.append(told["loss"])
    single.run()
    one = {name: value for name, value in tiny.flat(single.tensors()).items() if not name.startswith("optimizer/")}
    assert one.keys() == found["end"].keys()
    for name, value in one.items():
        assert torch.allclose(value, found["end"][name], atol=1e-5), name
    if way != "ddp":
        assert losses == pytest.approx(found["losses"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", [way for way in WAYS if way != "ddp"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_a_cut_run_resumes_on_the_same_bits(two_ranks: dict[str, Any], packing: str, way: str) -> None:
    end, again = two_ranks[packing][way]["end"], two_ranks[packing][way]["again"]
    assert all(torch.equal(value, again[name]) for name, value in end.items())


@pytest.mark.slow
@pytest.mark.parametrize("way", [way for way in WAYS if way != "ddp"])
def test_the_slices_of_a_cut_run_are_the_whole_of_a_lone_one(
    tiny: ModuleType, two_ranks: dict[str, Any], way: str
) -> None:
    kept: dict[int, dict[str, torch.Tensor]] = {}
    lone = tiny.trainer(data=tiny.rows(9), packing="none", checkpoint_every=3, **WAYS[way])
    lone.save = lambda step, groups, state: kept.update({step: tiny.flat(groups)})
    lone.run()
    first, second = two_ranks["none"][way]["pieces"]
    for name, value in kept[3].items():
        if first[name].shape == value.shape and torch.equal(first[name], second[name]):
            together = first[name]  # held whole by both
        else:
            together = torch.cat([first[name], second[name]])
        assert torch.allclose(together, value, atol=1e-5), name


def test_a_launcher_that_runs_fewer_processes_than_it_says_is_an_error(
    tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate import Accelerator

    monkeypatch.setattr(Accelerator, "num_processes", 1)
    run = tiny.trainer()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("r1core.train.parallel.Accelerator", lambda cpu: run.together.accelerator)
    with pytest.raises(R1Error, match="promised 2 processes, 1 run"):
        tiny.trainer()
