"""The forecast of training against counts made by hand, and the headers of weights against the weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from r1core.api import UserError
from r1core.data.tokens import Encoded
from r1core.forecast import REACHED, Matrices, matmul_speed, matrices, training
from r1core.recipe.schema import Recipe
from r1core.testing.tiny import tiny_model, tiny_model_dir

MODEL = Matrices({0: 1_000_000.0, 1: 1_000_000.0}, head=500_000, parameters=2_500_000)
SPEED = 1e9


def row(prompt: Sequence[int], answer: int = 2) -> Encoded:
    return Encoded("r", tuple(prompt), tuple(range(answer)), ())


def recipe(**tables: dict[str, object]) -> Recipe:
    """A recipe with these keys of [train] and [adapter]."""
    base = {"run": {"name": "r"}, "model": {"hub": "a/b"}, "data": {"source": "s"}}
    return Recipe.model_validate({**base, **tables})


ALONE = {"batch_size": 4, "packing": "none"}
SAMPLE = [row([1, 2, 3, 4, 5, 6, 7]), row([1, 2, 3, 9, 9])]  # 8 and 6 tokens read; three at the start are shared


def test_it_is_the_arithmetic_done_by_hand() -> None:
    told = training(SAMPLE, 40, recipe(train=ALONE), MODEL, SPEED)
    assert told.steps == 10
    assert told.tokens == pytest.approx(40 * 7)
    flop = 40 * 7 * (2 * 2_000_000 + 2 * 2_000_000) + 40 * 2 * 4 * 500_000
    assert told.flop == pytest.approx(flop)
    assert told.seconds == pytest.approx(flop / (REACHED * SPEED))


@pytest.mark.parametrize("packing", ["none", "shared_prefix"])
def test_twice_the_rows_take_twice_as_long(packing: str) -> None:
    asked = recipe(train={"batch_size": 4, "packing": packing})
    once, twice, tenfold = (training(SAMPLE, rows, asked, MODEL, SPEED).seconds for rows in (400, 800, 4000))
    assert twice == pytest.approx(2 * once)
    assert tenfold == pytest.approx(10 * once)


def test_a_shared_prefix_is_read_once_a_batch() -> None:
    packed = training(SAMPLE, 40, recipe(train={"batch_size": 4}), MODEL, SPEED)
    assert packed.tokens == pytest.approx(10 * (3 + 4 * (7 - 3)))


def test_blocks_below_the_adapter_need_no_backward_pass() -> None:
    asked = recipe(train=ALONE, adapter={"first_layer": 1})
    told = training(SAMPLE, 40, asked, MODEL, SPEED)
    assert told.flop == pytest.approx(40 * 7 * (2 * 2_000_000 + 2 * 1_000_000) + 40 * 2 * 4 * 500_000)


@pytest.mark.parametrize(
    ("strategy", "reached"),
    [
        ({"shallow_attention": {"mode": "frozen"}, "shallow_feed_forward": {"mode": "frozen"}}, 1_000_000),
        ({"embeddings": {"mode": "full"}, "shallow_attention": {"mode": "frozen"}}, 2_000_000),
        ({"shallow_attention": {"mode": "frozen"}}, 2_000_000),
    ],
)
def test_blocks_below_the_lowest_role_that_is_trained_need_none_either(strategy: object, reached: int) -> None:
    told = training(SAMPLE, 40, recipe(train=ALONE, strategy=strategy), MODEL, SPEED)  # type: ignore[arg-type]
    assert told.flop == pytest.approx(40 * 7 * (2 * 2_000_000 + 2 * reached) + 40 * 2 * 4 * 500_000)


def test_steps_and_epochs_are_the_recipes() -> None:
    assert training(SAMPLE, 10, recipe(train={**ALONE, "epochs": 3}), MODEL, SPEED).steps == 9
    assert training(SAMPLE, 10, recipe(train={**ALONE, "steps": 2}), MODEL, SPEED).steps == 2


def test_its_basis_is_told() -> None:
    told = str(training(SAMPLE, 4_000_000, recipe(train=ALONE), MODEL, SPEED))
    for part in (
        "estimate",
        "1,000,000 steps",
        "28.0 M tokens x 0.0086 GFLOP",
        "of 1 GFLOP/s",
        "on one core",
        "95.2 h",
    ):
        assert part in told


def test_headers_tell_what_the_model_holds(tmp_path: Path) -> None:
    folder = tiny_model_dir(tmp_path / "tiny")
    told, model = matrices(folder), tiny_model()
    assert told is not None
    assert told.parameters == sum(p.numel() for p in model.parameters())
    linear = [sum(p.numel() for p in block.parameters() if p.dim() == 2) for block in model.model.layers]
    assert [told.blocks[i] for i in range(len(told.blocks))] == linear
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


def test_of_experts_only_those_that_a_token_meets_count(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_experts": 8, "num_experts_per_tok": 2}')
    weights(tmp_path / "model-1.safetensors", {"model.layers.0.mlp.experts.gate_up_proj": [8, 4, 3], "embed": [10, 4]})
    weights(tmp_path / "model-2.safetensors", {"model.layers.0.mlp.shared_expert.up.weight": [4, 5], "norm": [4]})
    assert matrices(tmp_path) == Matrices({0: 96 / 4 + 20}, head=40, parameters=96 + 40 + 20 + 4)


def test_no_weights_no_forecast_and_broken_ones_are_said(tmp_path: Path) -> None:
    assert matrices(tmp_path) is None
    file = tmp_path / "model.safetensors"
    for content in (b"", b"garbage", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 1 << 60)):
        file.write_bytes(content)
        with pytest.raises(UserError, match="not a safetensors file"):
            matrices(tmp_path)
    weights(file, {"a.0.w": [100, 100]}, cut=1)
    with pytest.raises(UserError, match=r"model\.safetensors: [\d,]+ bytes, its header says [\d,]+"):
        matrices(tmp_path)


def test_the_speed_is_one_that_a_processor_has() -> None:
    assert 1e8 < matmul_speed(repeats=2) < 1e13
