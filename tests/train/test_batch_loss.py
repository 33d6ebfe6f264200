"""A model's loss of the batch as a whole enters a step by the share of its rows, and is told when the step is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from r1core.api import UserError
from r1core.data.packing import Layout, pack_rows
from r1core.model.adapted import adapted_of
from r1core.model.adapter import load_adapter
from r1core.model.processes import ranks
from r1core.model.r1.routing import R1Router
from r1core.model.scores import logits_at
from r1core.recipe.strategy import Role, Strategy
from r1core.testing.tiny_r1 import model, tokens
from r1core.train.feed import idle, valid_tokens
from r1core.train.loop import Groups, Trainer


def trained(tiny: ModuleType, weight: float, **train: object) -> Trainer:
    base = model(vocab_size=400, router_aux_loss_coef=weight, router_z_loss_coef=0.0, sliding_window=64)
    run = tiny.trainer(base=base, layer=False, max_grad_norm=1e9, **train)
    for parameter in run.trainable:
        parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 20
    return run


def gradients(run: Trainer, tiny: ModuleType) -> list[torch.Tensor]:
    taken: list[torch.Tensor] = []
    run.optimizer.register_step_pre_hook(lambda *_: taken.extend(p.grad.clone() for p in run.trainable))
    tiny.one_step(run)
    return taken


@pytest.mark.parametrize("train", [{"packing": "shared_prefix"}, {"packing": "best_fit", "micro_batch_tokens": 20}])
def test_each_micro_batch_counts_by_its_supervised_tokens(tiny: ModuleType, train: dict[str, object]) -> None:
    heavy, light = trained(tiny, 50.0, **train), trained(tiny, 0.0, **train)
    reference = trained(tiny, 50.0, **train)
    reference.model.train()
    tokens = [int((batch.row < batch.rows).sum()) for batch in reference.feed.step(0).batches]
    total = torch.zeros(())
    for batch, share in zip(reference.feed.step(0).batches, tokens, strict=True):
        logits_at(reference.model, batch)
        total = total + share / sum(tokens) * reference.model.get_base_model().batch_loss()
    right = torch.autograd.grad(total, reference.trainable, allow_unused=True)
    found = zip(gradients(heavy, tiny), gradients(light, tiny), right, strict=True)
    moved = 0
    for with_it, without, wanted in found:
        expected = torch.zeros_like(with_it) if wanted is None else wanted
        assert torch.allclose(with_it - without, expected, atol=1e-5)
        moved += int(bool(expected.abs().max() > 1e-4))
    assert moved > len(right) / 3


ROUNDING = 1e-4
"""Of a weight that the steps move by up to 6e-3: where a gradient is all but zero, Adam makes much of its rounding."""
FULL = Role(mode="full", learning_rate=1e-2)
WHOLE = Strategy(shallow_feed_forward=FULL, middle_feed_forward=FULL)


def routers(run: Trainer) -> list[R1Router]:
    return [one for one in run.model.modules() if isinstance(one, R1Router) and one.weight.requires_grad]


def test_biases_of_trained_routers_move_once_a_step_and_are_kept_with_them(tiny: ModuleType, tmp_path: Path) -> None:
    run = trained(tiny, 0.01, packing="best_fit", micro_batch_tokens=20, strategy=WHOLE)
    tiny.one_step(run)
    assert len(routers(run)) == 2
    for router in routers(run):
        assert router.bias_steps.any()
        assert not router.load.any()
    run.model.eval()
    ids = tokens(1, 20)
    adapted_of(run.model).save(tmp_path)
    base = model(vocab_size=400, router_aux_loss_coef=0.01, router_z_loss_coef=0.0, sliding_window=64)
    again = load_adapter(base, tmp_path).model.eval()
    assert torch.allclose(again(ids).logits, run.model(ids).logits, atol=1e-5)
    kept = [one.bias_steps for one in again.modules() if isinstance(one, R1Router)]
    assert any(torch.equal(routers(run)[0].bias_steps, one) for one in kept)


@pytest.mark.parametrize(
    ("laid", "tokens_read"),
    [
        ({"packing": "padded"}, sum),
        ({"packing": "none"}, sum),
        ({"packing": "best_fit"}, sum),
        ({"packing": "shared_prefix"}, lambda lengths: sum(lengths) - 3 * (len(lengths) - 1)),
    ],
    ids=["padded", "none", "best_fit", "shared_prefix"],
)
def test_padding_counts_in_no_load(tiny: ModuleType, laid: dict[str, str], tokens_read: Callable[..., int]) -> None:
    run = trained(tiny, 0.01, strategy=WHOLE, data=tiny.rows(4), **laid)
    run.of_batch.after_step = lambda progress: None  # the load stays to be read
    tiny.one_step(run)
    read = [len(row.prompt) + len(row.response) - 1 for row in run.rows]
    assert len(set(read)) > 1
    assert [int(router.load.sum()) for router in routers(run)] == [2 * tokens_read(read)] * 2


def test_padding_and_idle_passes_are_no_tokens(tiny: ModuleType) -> None:
    rows = tiny.rows(3)
    flash = Layout(share=False, flash=True, longest=64, multiple=32, rows=5)
    filled = pack_rows(rows, {}, torch.float32, flash)
    used = sum(len(row.prompt) + len(row.response) - 1 for row in rows)
    assert filled.input_ids.shape == (1, 32 * -(-used // 32))
    assert valid_tokens(filled).tolist() == [[at < used for at in range(filled.input_ids.shape[1])]]
    assert not valid_tokens(idle(rows[0], {}, torch.float32, flash)).any()


def test_a_frozen_routers_bias_stays(tiny: ModuleType) -> None:
    run = trained(tiny, 0.01, packing="best_fit")
    tiny.one_step(run)
    assert not routers(run)
    assert not any(one.bias_steps.any() for one in run.model.modules() if isinstance(one, R1Router))


def test_the_temperature_moves_with_the_steps_and_goes_on_where_it_stood(tiny: ModuleType, tmp_path: Path) -> None:
    kept: dict[int, tuple[Groups, dict[str, object]]] = {}
    seen: list[float] = []

    def started(save: object = lambda *_: None) -> Trainer:
        falling = {"start": 2.0, "end": 0.8, "shape": "linear"}
        base = model(vocab_size=400, sliding_window=64, router_temperature=falling)
        told = lambda *_: seen.append(routers(run)[0].temperature)  # noqa: E731
        run = tiny.trainer(save, told, base=base, layer=False, steps=6, checkpoint_every=2, strategy=WHOLE)
        return run

    run = started(lambda step, *saved: kept.update({step: saved}))
    run.run()
    assert seen == [2.0, 1.8, 1.6, 1.4, 1.2, 1.0], "a step routes by what the steps before it reached"
    assert {router.temperature for router in routers(run)} == {0.8}
    again = started()
    again.resume(*kept[2])
    assert {router.temperature for router in routers(again)} == {1.6}
    again.run()
    one, other = tiny.flat(run.tensors()), tiny.flat(again.tensors())
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    adapted_of(run.model).save(tmp_path)
    base = model(vocab_size=400, sliding_window=64)
    merged = load_adapter(base, tmp_path).merged()
    merged.save_pretrained(tmp_path / "merged")
    assert json.loads((tmp_path / "merged/config.json").read_text())["router_temperature"] == 0.8


def test_balance_passes_move_biases_and_nothing_else(tiny: ModuleType) -> None:
    """And make the use of experts even on the rows that were read, which a count of routed tokens shows."""

    def started(passes: int) -> Trainer:
        base = model(vocab_size=400, sliding_window=64, router_bias_rate=0.1)
        return tiny.trainer(
            base=base, layer=False, strategy=WHOLE, dropout=0.1, packing="padded", balance_passes=passes
        )

    before, after = ran(started(0)), ran(started(60))
    one, other = tiny.flat(before.tensors()), tiny.flat(after.tensors())
    assert one.keys() == other.keys()
    apart = {name for name in one if not torch.equal(one[name], other[name])}
    assert apart == {name for name in one if name.endswith("bias_steps")}
    assert not after.model.training
    uneven, even = spreads(before), spreads(after)
    assert max(even) < 0.6 * max(uneven)
    assert after.of_batch.model.told is None


def spreads(run: Trainer) -> list[float]:
    """Standard deviation over mean of tokens per expert, by layer, of every row read alone."""
    chosen: list[list[torch.Tensor]] = [[] for _ in routers(run)]
    for layer, router in enumerate(routers(run)):
        router.register_forward_hook(lambda *given, layer=layer: chosen[layer].append(given[-1].experts.flatten()))
    for row in run.rows:
        run.model(torch.tensor([[*row.prompt, *row.response[:-1]]]))
    counts = [torch.bincount(torch.cat(layer), minlength=16).double() for layer in chosen]
    return [float(count.std(correction=0) / count.mean()) for count in counts]


@pytest.mark.slow
def test_two_processes_balance_as_one_does(tiny: ModuleType) -> None:
    options = {"packing": "none", "balance_passes": 5}
    (_, ends), (_, others) = ended(tiny, 1, **options), ended(tiny, 2, **options)
    names = [name for name in ends if name.endswith("bias_steps")]
    assert len(names) == 2
    assert all(torch.equal(ends[name], others[name]) for name in names)


def test_a_schedule_beside_frozen_routers_stops_before_the_first_step(tiny: ModuleType) -> None:
    base = model(vocab_size=400, sliding_window=64, router_temperature={"start": 2.0, "end": 0.5})
    with pytest.raises(UserError, match="2 of 2 routers are frozen"):
        tiny.trainer(base=base, layer=False).run()


def ended(tiny: ModuleType, world: int, **options: object) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and trained weights, routers' biases and temperatures among them, of a training by so many processes."""
    losses: list[float] = []

    def started(told: object = lambda *_: None) -> Trainer:
        base = model(vocab_size=400, sliding_window=64, router_temperature={"start": 2.0, "end": 0.8})
        given = {"data": tiny.rows(7), "layer": False, "strategy": WHOLE, "learning_rate": 1e-3, "epochs": 3}
        return tiny.trainer(on_step=told, base=base, **{**given, **options})

    with ranks(world, lambda: tiny.gathered(ran(started()))):
        run = ran(started(lambda _, told: losses.append(told["loss"])))
        return losses, tiny.gathered(run)


def ran(run: Trainer) -> Trainer:
    run.run()
    return run


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True], ids=["ddp", "fsdp2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_processes_train_routers_as_one_does(tiny: ModuleType, cut: bool, checkpointing: bool) -> None:
    """One row a pass; the last batch of an epoch has three, so that a process that is cut runs an idle pass."""
    options = {"packing": "none", "gradient_checkpointing": checkpointing}
    (one, ends), (two, others) = ended(tiny, 1, **options), ended(tiny, 2, cut=cut, **options)
    assert two == pytest.approx(one, rel=1e-5)
    assert ends.keys() == others.keys()
    moved = [value for name, value in ends.items() if name.endswith("bias_steps")]
    assert len(moved) == 2
    assert all(int(value.abs().max()) > 1 for value in moved)
    for name, value in ends.items():
        exact = name.endswith(("bias_steps", "tau"))
        assert torch.allclose(value.double(), others[name].double(), rtol=0, atol=0 if exact else ROUNDING), name


def test_a_processs_micro_batch_counts_by_its_share(tiny: ModuleType) -> None:
    """The losses are means over each process's micro-batch, and not over all that a step reads."""
    packed = {"packing": "shared_prefix", "batch_size": 4}
    with ranks(2, lambda: trained(tiny, 50.0, **packed).step(0)):
        together = gradients(trained(tiny, 50.0, **packed), tiny)
    light = gradients(trained(tiny, 0.0, **packed), tiny)
    reference = trained(tiny, 50.0, **packed)
    reference.model.train()
    total = torch.zeros(())
    for rank in (0, 1):
        reference.feed.rank, reference.feed.world = rank, 2
        step = reference.feed.step(0)
        for batch, share in zip(step.batches, step.shares, strict=True):
            assert 0 < share < 1
            logits_at(reference.model, batch)
            total = total + share * reference.model.get_base_model().batch_loss()
    right = torch.autograd.grad(total, reference.trainable, allow_unused=True)
    for with_it, without, wanted in zip(together, light, right, strict=True):
        assert torch.allclose(with_it - without, torch.zeros_like(with_it) if wanted is None else wanted, atol=1e-5)


@pytest.mark.slow
def test_two_processes_move_biases_as_one_does(tiny: ModuleType) -> None:
    def started() -> Trainer:
        return trained(tiny, 0.01, packing="best_fit", micro_batch_tokens=20, strategy=WHOLE)

    alone = started()
    tiny.one_step(alone)
    with ranks(2, lambda: started().step(0)):
        two = started()
        tiny.one_step(two)
    for one, other in zip(routers(alone), routers(two), strict=True):
        assert torch.equal(one.bias_steps, other.bias_steps)
