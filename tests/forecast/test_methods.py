"""Forecasts on named GPUs: against what was measured, against closed forms, and what their names may be."""

from __future__ import annotations

import resource
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from r1core.api import UserError
from r1core.forecast.hardware import GPUS, gpu_named, hardware
from r1core.forecast.memory import library_bytes, memory_of
from r1core.forecast.methods import GUIDE, PPO_EPOCHS, method_named, on_cpu, on_gpus
from r1core.forecast.processor import Core
from r1core.forecast.shape import llama_shape
from r1core.forecast.table import Table, table_of
from r1core.forecast.words import duration, memory_line, time_line
from r1core.forecast.work import Rows, Step
from r1core.recipe.schema import Recipe
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter, Train

SHAPES: dict[str, dict[str, int]] = {
    "135m": {"vocabulary": 49152, "width": 576, "feed_forward": 1536, "blocks": 30, "heads": 9, "groups": 3},
    "1b": {"vocabulary": 128256, "width": 2048, "feed_forward": 8192, "blocks": 16, "heads": 32, "groups": 8},
}


def table(shape: str, adapter: Adapter | None = None, **strategy: Any) -> Table:
    made = llama_shape(**SHAPES[shape])  # type: ignore[arg-type]
    return table_of(made, adapter or Adapter(rank=16), Strategy.model_validate(strategy), Train())


@pytest.mark.parametrize(("shape", "batch", "speed", "gib"), [("135m", 16, 299_694, 9.03), ("1b", 8, 82_734, 12.73)])
def test_the_measured_runs_on_an_h200_are_told_within_a_quarter(
    shape: str, batch: int, speed: float, gib: float
) -> None:
    train = Train(batch_size=batch, packing="best_fit", steps=1000)
    told = on_gpus(table(shape), Rows(1e6, 1025, 1024), train, hardware("H200"))
    assert told.tokens / (1000 * told.parts["passes"]) == pytest.approx(speed, rel=0.25)
    torchs = told.memory.total - told.memory.libraries  # the context is not in torch's own count
    assert torchs / 2**30 == pytest.approx(gib, rel=0.25)
    assert told.fits


def test_three_balance_passes_take_the_time_of_a_step() -> None:
    rows, gpu = Rows(1e6, 1025, 1024), hardware("H100")
    given = {"batch_size": 16, "packing": "best_fit"}
    more = on_gpus(table("135m"), rows, Train(**given, steps=400, balance_passes=300), gpu)
    right = on_gpus(table("135m"), rows, Train(**given, steps=500), gpu)
    assert more.seconds == pytest.approx(right.seconds)
    assert more.steps == 400


def test_published_sizes_of_llama_3_2_1b_and_smollm2() -> None:
    assert table("1b").base == 1_235_814_400
    assert table("135m").base == 134_515_008
    assert table("1b").trained == 11_272_192  # LoRA of rank 16 on all linear layers


def test_memory_of_weights_and_optimiser_is_that_of_the_books() -> None:
    made = table("1b", preset="guide", untie=True)
    head, low_rank = 128256 * 2048, 11_272_192
    memory = memory_of(made, Step(1, 0, 0, 0), bytes_each=2, compiled=True)
    assert memory.weights == 2 * (1_235_814_400 + head + low_rank)  # bf16, A and B also cast
    assert memory.trained == 16 * (head + low_rank)  # fp32, its gradient, two moments
    assert memory.activations == memory.logits == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident sizes are read from /proc")
def test_libraries_take_what_is_said_of_this_build_of_torch() -> None:
    code = "import torch, transformers, peft, accelerate; print(open('/proc/self/statm').read().split()[1])"
    pages = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(pages) * resource.getpagesize() == pytest.approx(library_bytes(), rel=0.25)


def test_checkpointing_takes_less_memory_and_more_time() -> None:
    train = Train(batch_size=8, packing="best_fit", steps=10)
    rows = Rows(1e6, 1025, 1024)
    plain = on_gpus(table("1b"), rows, train, hardware("H200"))
    again = on_gpus(table("1b"), rows, train.model_copy(update={"gradient_checkpointing": True}), hardware("H200"))
    assert again.memory.activations < plain.memory.activations / 4
    assert 1.1 < again.parts["passes"] / plain.parts["passes"] < 1.5


def test_twice_the_samples_take_twice_as_long_and_more_gpus_less() -> None:
    train, rows = Train(batch_size=64, packing="best_fit"), Rows(64_000, 513, 128)
    one, four = (on_gpus(table("1b"), rows, train, hardware(f"{n}xA100-80G")) for n in (1, 4))
    double = on_gpus(table("1b"), replace(rows, number=128_000), train, hardware("1xA100-80G"))
    assert (double.seconds - 60) == pytest.approx(2 * (one.seconds - 60))
    assert 0.25 < four.seconds / one.seconds < 0.5
    assert any("assumed" in line for line in four.basis)


@pytest.mark.parametrize("method", ["ppo", "multitask"])
def test_what_a_method_does_more_takes_longer_and_says_what_it_assumes(method: str) -> None:
    train, rows = Train(batch_size=32, packing="best_fit"), Rows(10_000, 513, 128)
    plain, more = (on_gpus(table("1b"), rows, train, hardware("8xA100-80G"), m) for m in ("lora", method))
    assert more.seconds > 1.2 * plain.seconds
    assert more.memory.total > plain.memory.total
    assert len(more.assumed) > len(plain.assumed)
    if method == "ppo":
        assert set(more.parts) == {"sampling", "reference", "updates"}
        assert more.parts["updates"] > PPO_EPOCHS * plain.parts["passes"]
        assert more.parts["sampling"] > 256 * 2 * 1_235_814_400 / 2.039e12  # every token reads all weights


def test_the_guides_rows_are_the_guides() -> None:
    told = [(claim.method, claim.hardware, claim.batch_size, claim.hours) for claim in GUIDE]
    assert told == [
        ("lora", "4xA100", 64, "12-15"),
        ("ppo", "8xA100", 32, "24-30"),
        ("multitask", "8xA100", 16, "36-42"),
    ]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("4xA100-80G", "4xA100-80G"), ("H200", "1xH200"), ("2 x rtx 4090", "2xRTX4090"), ("a100_40gb", "1xA100-40G"),
        ("8XH100", "8xH100-80G"), ("A100", "1xA100-40G"), ("L40S", "1xL40S"),
    ],
)  # fmt: skip
def test_hardware_is_spelled_as_people_do(typed: str, meant: str) -> None:
    assert str(hardware(typed)) == meant


@pytest.mark.parametrize(
    ("typed", "said", "fix"),
    [
        ("4xA10O-80G", "no figures for", "did you mean A100-80G?"),
        ("8xV100", "no bf16", "known:"),
        ("0xA100", "a number of GPUs", "4xA100-80G"),
        ("9999xA100", "1 to 1,024", "4xA100-80G"),
        ("4x", "a number of GPUs", "NxNAME"),
        ("abacus", "no figures", "known:"),
    ],
)
def test_hardware_that_is_none_is_refused(typed: str, said: str, fix: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        hardware(typed)
    assert fix in refused.value.fix


@pytest.mark.parametrize(
    ("driver", "meant"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-80G"), ("NVIDIA H100 PCIe", "H100-PCIE"), ("NVIDIA A100-SXM4-40GB", "A100-40G"),
        ("NVIDIA A100 80GB PCIe", "A100-80G"), ("NVIDIA H200", "H200"), ("NVIDIA L4", "L4"), ("NVIDIA L40", ""),
        ("NVIDIA A10G", ""), ("NVIDIA GeForce RTX 4090", "RTX4090"), ("NVIDIA RTX A6000", "A6000"), ("Tesla T4", ""),
    ],
)  # fmt: skip
def test_a_drivers_name_is_understood_or_not_taken_for_another(driver: str, meant: str) -> None:
    found = gpu_named(driver)
    assert (found.gpu.name if found else "") == meant


def test_every_gpu_has_a_data_sheet_and_figures_that_can_be() -> None:
    for gpu in GPUS.values():
        assert gpu.source
        assert 5e13 < gpu.bf16 < 5e15
        assert 1e11 < gpu.bandwidth < 1e13
        assert gpu.fp32 < gpu.bf16


def test_methods_are_three() -> None:
    assert method_named("ppo") == "ppo"
    with pytest.raises(UserError) as refused:
        method_named("pop")
    assert refused.value.fix == "did you mean 'ppo'?"


def recipe(**tables: Any) -> Recipe:
    base = {"run": {"name": "r"}, "model": {"hub": "a/b"}, "data": {"source": "s"}}
    return Recipe.model_validate({**base, **tables})


def test_processes_share_the_time_and_the_weights() -> None:
    train = {"batch_size": 16}
    rows, core = Rows(8_387, 19, 2, 7, 340.0), Core(78e9, 32e9)
    one, two = (
        on_cpu(
            table("135m"), rows, recipe(train=train, model={"hub": "a/b", "processes": n}), core, private=False,
            held=5e8, there=25e9,
        )
        for n in (1, 2)
    )  # fmt: skip
    assert 0.5 < two.seconds / one.seconds < 0.65
    assert two.cpu_seconds > one.cpu_seconds  # what the rows share is computed twice
    assert two.together == pytest.approx(2 * two.memory.total - two.memory.weights - two.memory.libraries)
    assert two.together < 2 * two.memory.total
    assert "2 processes" in time_line(two)
    assert "525 steps" in time_line(two)
    assert "2 processes of" in memory_line(two)


def test_durations_have_the_unit_that_reads_best() -> None:
    told = [duration(s) for s in (12, 400, 7200, 100_000, 400_000)]
    assert told == ["12 s", "7 min", "2.0 h", "28 h", "4.6 days"]


def test_nothing_of_the_plan_imports_torch() -> None:
    heavy = "sorted({'torch', 'transformers'} & set(sys.modules))"
    code = f"import sys, r1core.plan, r1core.cli.plan, r1core.check; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
