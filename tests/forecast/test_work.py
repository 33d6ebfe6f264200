"""The forecast's arithmetic against counts made by hand, and the headers of weights against the weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from r1core.api import UserError
from r1core.data.tokens import Encoded
from r1core.forecast.processor import Core, copy_speed, matmul_speed, processes_of, seconds_of
from r1core.forecast.shape import Shape, llama_shape, read_shape, shape_of
from r1core.forecast.table import Table, table_of
from r1core.forecast.work import Rows, Step, Work, rows_of, step_of, steps_of, work_of
from r1core.model.limits import usable_cores
from r1core.recipe.schema import Model
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter, Train
from r1core.testing.tiny import tiny_model, tiny_model_dir

# Two blocks, 8 wide: q and o 8x8, k and v 4x8, three matrices of 8x16; the head is the embedding, 50x8.
SIZES = {"vocabulary": 50, "width": 8, "feed_forward": 16, "blocks": 2, "heads": 2, "groups": 1}
BLOCK, ENDS, HEAD = 2 * 64 + 2 * 32 + 3 * 128, 2 * 16 + 2 * 12 + 3 * 24, 400


def row(prompt: Sequence[int], answer: int = 2) -> Encoded:
    return Encoded("r", tuple(prompt), tuple(range(answer)), ())


def table(adapter: Adapter | None = None, **strategy: Any) -> Table:
    return table_of(llama_shape(**SIZES), adapter or Adapter(rank=2), Strategy.model_validate(strategy), Train())


ALONE = Train(batch_size=4, packing="none")
SAMPLE = [row([1, 2, 3, 4, 5, 6, 7]), row([1, 2, 3, 9, 9])]  # 8 and 6 tokens read; three at the start are shared
FROZEN = {"mode": "frozen"}


def test_rows_are_told_by_their_sample() -> None:
    rows = rows_of(SAMPLE, 40, 4)
    assert (rows.length, rows.read, rows.answered, rows.shared) == (8, 7, 2, 3)
    assert rows.square == (8**2 + 6**2) / 2
    assert rows_of(SAMPLE, 40, 4, stretch=1.5).length == 12


def test_products_are_those_counted_by_hand() -> None:
    step = Step(passes=4, tokens=28, answered=8, pairs=0)
    lora = 2 * 2 * ENDS  # of both blocks, rank 2
    flop = 28 * (2 * 2 * BLOCK + 2 * 2 * BLOCK + 6 * lora) + 8 * 4 * HEAD
    assert work_of(table(), step).flop == flop
    again = 28 * 2 * 2 * BLOCK
    assert work_of(table(), step, checkpointed=True).flop == flop + again


def test_attention_is_counted_a_pair() -> None:
    without, some = (work_of(table(), Step(1, 10, 2, pairs)).flop for pairs in (0, 100))
    assert some - without == 3.5 * 4 * 100 * 8 * 2  # forward and 2.5 times that back, 8 wide, two blocks


@pytest.mark.parametrize(
    ("adapter", "strategy", "reached"),
    [
        ({"first_layer": 1}, {}, 1),
        ({}, {"shallow_attention": FROZEN, "shallow_feed_forward": FROZEN}, 1),
        ({}, {"embeddings": {"mode": "full"}, "shallow_attention": FROZEN, "untie": True}, 2),
        ({}, {"shallow_attention": FROZEN}, 2),
    ],
)
def test_blocks_below_the_lowest_that_is_trained_need_no_backward_pass(
    adapter: dict[str, int], strategy: dict[str, Any], reached: int
) -> None:
    made = table(Adapter(rank=2, **adapter), **strategy)  # type: ignore[arg-type]
    low_rank = sum(w.inputs + w.outputs for w in made.low_rank)
    flop = work_of(made, Step(1, 28, 0, 0)).flop
    assert flop == 28 * (2 * 2 * BLOCK + 2 * reached * BLOCK + 6 * 2 * low_rank)


def test_a_head_trained_in_full_is_computed_twice_and_in_fp32() -> None:
    work = work_of(table(preset="guide", untie=True), Step(1, 28, 8, 0))
    assert work.flop_fp32 == 8 * 8 * HEAD  # logits twice, their gradient by hidden state and by weight
    assert work.updated == HEAD + 2 * 2 * ENDS


@pytest.mark.parametrize("packing", ["none", "shared_prefix"])
def test_twice_the_rows_take_twice_as_many_steps(packing: Any) -> None:
    train = Train(batch_size=4, packing=packing)
    assert [steps_of(rows_of(SAMPLE, n, 4), train) for n in (400, 800, 4000)] == [100, 200, 1000]


def test_a_shared_prefix_is_read_once_a_pass_and_by_each_process() -> None:
    rows = rows_of(SAMPLE, 40, 4)
    packed = Train(batch_size=4)
    assert step_of(rows, packed).tokens == 3 + 4 * (7 - 3)
    assert step_of(rows, packed).pairs == 19**2
    assert step_of(rows, packed, 2).tokens == 3 + 2 * (7 - 3)
    alone = step_of(rows, ALONE)
    assert (alone.passes, alone.tokens, alone.pairs, alone.answered) == (4, 28, 4 * 50, 8)


def test_passes_are_as_short_as_asked_for_and_flash_batches_are_padded() -> None:
    rows = Rows(1000, 1025, 100)
    asked = Train(batch_size=16, packing="best_fit", micro_batch_tokens=8192)
    step = step_of(rows, asked, flash=True)
    assert (step.passes, step.tokens, step.pairs) == (3, 3 * 5632, 16 * 1024**2 / 2)


def test_steps_and_epochs_are_the_recipes() -> None:
    rows = Rows(10, 8, 2)
    assert steps_of(rows, Train(batch_size=4, epochs=3)) == 9
    assert steps_of(rows, Train(batch_size=4, steps=2)) == 2
    assert step_of(Rows(3, 8, 2), ALONE).passes == 3  # a small set has no whole batch


def test_seconds_are_the_sum_of_what_takes_them() -> None:
    core = Core(speed=1e9, bandwidth=1e10)
    assert seconds_of(Work(flop=3e9, flop_fp32=1e9), core) == pytest.approx(4.0)
    parts = [Work(flop=1e9), Work(moved=1e6), Work(weights=1e6), Work(launches=100), Work(updated=1e6)]
    whole = Work(flop=1e9, moved=1e6, weights=1e6, launches=100, updated=1e6)
    assert seconds_of(whole, core) == pytest.approx(sum(seconds_of(part, core) for part in parts))


@pytest.mark.parametrize(
    ("model", "more", "expected"),
    [
        ({}, {"tokens": 100.0}, 1),  # done before others have started
        ({}, {"private": True}, 1),
        ({"processes": 3}, {}, 3),
        ({"processes": 3}, {"batch_size": 2}, 2),
        ({"threads": 2}, {}, 1),
        ({}, {}, min(64, usable_cores())),
    ],
)
def test_processes_are_as_many_as_training_takes(
    model: dict[str, int], more: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    asked = {"parameters": 10**9, "tokens": 1e6, "batch_size": 64, "private": False} | more
    assert processes_of(Model.model_validate({"hub": "a/b", **model}), **asked) == expected


def test_headers_tell_what_the_model_holds(tmp_path: Path) -> None:
    told, model = read_shape(tiny_model_dir(tmp_path / "tiny")), tiny_model()
    assert told is not None
    assert told.parameters == sum(p.numel() for p in model.parameters())
    for index, block in enumerate(model.model.layers):
        linear = sum(p.numel() for p in block.parameters() if p.dim() == 2)
        assert sum(w.count for w in told.matrices if w.block == index) == linear
    config = model.config
    assert (told.blocks, told.width, told.heads) == (2, config.hidden_size, config.num_attention_heads)
    assert told.queries == config.num_attention_heads * config.head_dim
    assert told.keys == config.num_key_value_heads * config.head_dim
    assert (told.feed_forward, told.vocabulary, told.tied) == (config.intermediate_size, config.vocab_size, True)
    assert told.head == model.lm_head.weight.numel()


def weights(path: Path, shapes: dict[str, list[int]], cut: int = 0) -> None:
    """A safetensors file of zeros, by its specification."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = 2
        for extent in shape:
            size *= extent
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(entries).encode()
    path.write_bytes((struct.pack("<Q", len(head)) + head + bytes(at))[: -cut or None])


def test_of_experts_only_those_that_a_token_meets_are_computed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_experts": 8, "num_experts_per_tok": 2, "hidden_size": 4}')
    weights(tmp_path / "model-1.safetensors", {"model.layers.0.mlp.experts.gate_up_proj": [8, 4, 3], "embed": [10, 4]})
    weights(tmp_path / "model-2.safetensors", {"model.layers.0.mlp.shared_expert.up.weight": [4, 5], "norm": [4]})
    told = read_shape(tmp_path)
    assert told is not None
    assert told.parameters == 96 + 40 + 20 + 4
    assert sum(w.count * w.share for w in told.matrices) == 96 / 4 + 20
    assert [w.name for w in told.weights if w.linear] == ["model.layers.0.mlp.shared_expert.up"]
    assert told.head == 40


def test_what_loading_passes_over_is_passed_over() -> None:
    config = {"num_hidden_layers": 1, "hidden_size": 4, "n_head": 1}
    plain = [("h.0.attn.c_attn.weight", (4, 12)), ("h.0.attn.c_attn.bias", (12,)), ("wte.weight", (9, 4))]
    buffers = [("h.0.attn.bias", (1, 1, 8, 8)), ("h.0.attn.masked_bias", ()), ("h.0.rotary_emb.inv_freq", (2,))]
    further = [("h.1.attn.c_attn.weight", (4, 12))]  # a block beyond the configuration's one
    told: Shape = shape_of([*plain, *buffers, *further], config, tied=True)
    assert told.parameters == 48 + 12 + 36
    [matrix] = told.matrices
    assert (matrix.inputs, matrix.outputs) == (4, 12)  # as its bias says, for GPT-2's lie the other way round
    twice = shape_of([*plain, ("lm_head.weight", (9, 4))], config, tied=True)
    assert twice.parameters == told.parameters


def test_no_weights_no_forecast_and_broken_ones_are_said(tmp_path: Path) -> None:
    assert read_shape(tmp_path) is None
    file = tmp_path / "model.safetensors"
    for content in (b"", b"garbage", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 1 << 60)):
        file.write_bytes(content)
        with pytest.raises(UserError, match="not a safetensors file"):
            read_shape(tmp_path)
    weights(file, {"a.0.w": [100, 100]}, cut=1)
    with pytest.raises(UserError, match=r"model\.safetensors: [\d,]+ bytes, its header says [\d,]+"):
        read_shape(tmp_path)


def test_the_speeds_are_ones_that_a_processor_has() -> None:
    assert 1e8 < matmul_speed(repeats=2) < 1e13
    assert 1e8 < copy_speed(repeats=2) < 1e13
