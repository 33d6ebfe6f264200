"""What `r1core plan` forecasts beside what was measured: time and memory, and whether it holds within 25 %.

Run: python benchmarks/forecast.py [--run runs/medical ...] [--read RESULT-LINES]. Needs no GPU: the measured runs on
GPUs are those in `results/training_gpu.json`, or the RESULT lines of `training_gpu.py`. The forecast of a run on a CPU
rests on probes of the machine that this is called on: the one that it ran on, with nothing else to do then.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from record import RESULTS, machine, write

from r1core.check_data import train_sample
from r1core.cli.common import select
from r1core.forecast.hardware import gpu_named
from r1core.forecast.here import here
from r1core.forecast.methods import Forecast, on_gpus
from r1core.forecast.shape import llama_shape, read_shape
from r1core.forecast.table import table_of
from r1core.forecast.work import Rows
from r1core.recipe.strategy import Strategy
from r1core.recipe.training import Adapter, Train
from r1core.selection import Selection
from r1core.workbench import open_bench

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from workload import ALPHA, RANK, SHAPES

WITHIN = 0.25
"""Relative difference that is aimed at."""
LENGTH = 1024
"""Tokens of a row in `training_gpu.py`."""
FIGURE = re.compile(r"r1core (\w+): (speed|peak memory) \((\w+), batches of (\d+) x 1,024 tokens, bf16\)")


def compared(what: str, forecast: float, measured: float, unit: str, where: str) -> dict[str, object]:
    """One row: the ratio of forecast and measured."""
    ratio = forecast / measured
    return {
        "figure": f"{what}: forecast {forecast:,.4g} over measured {measured:,.4g} {unit}",
        "value": round(ratio, 3),
        "unit": "times",
        "target": f"1 +- {WITHIN}",
        "met": abs(ratio - 1) <= WITHIN,
        "machine": where,
    }


def gpu_forecast(shape: str, batch: int, variant: str, device: str) -> Forecast | None:
    """The forecast of one run of `training_gpu.py`; None on a GPU that the table does not know."""
    hardware, sizes = gpu_named(device), SHAPES[shape]
    if hardware is None:
        return None
    model = llama_shape(
        vocabulary=sizes["vocab_size"], width=sizes["hidden_size"], feed_forward=sizes["intermediate_size"],
        blocks=sizes["num_hidden_layers"], heads=sizes["num_attention_heads"], groups=sizes["num_key_value_heads"],
        tied=sizes["tie_word_embeddings"],
    )  # fmt: skip
    train = Train(
        batch_size=batch, packing="best_fit", steps=100, gradient_checkpointing=variant == "checkpointed",
        compile="off" if variant == "uncompiled" else "auto",
    )  # fmt: skip
    table = table_of(model, Adapter(rank=RANK, alpha=ALPHA), Strategy(), train)
    return on_gpus(table, Rows(1e6, LENGTH + 1, LENGTH), train, hardware)


def from_results() -> Iterator[tuple[str, str, int, str, dict[str, float]]]:
    """Variant, shape, rows, device and what was measured, of r1core's recorded runs on GPUs."""
    found: dict[tuple[str, str, int, str], dict[str, float]] = {}
    for row in json.loads((RESULTS / "training_gpu.json").read_text()):
        told = FIGURE.fullmatch(row["figure"])
        if told is not None:
            device = row["machine"].partition(",")[0]
            found.setdefault((told[1], told[3], int(told[4]), device), {})[told[2]] = float(row["value"])
    for (variant, shape, rows, device), measured in found.items():
        yield variant, shape, rows, device, measured


def from_lines(file: Path) -> Iterator[tuple[str, str, int, str, dict[str, float]]]:
    """The same of RESULT lines, whose rows are those of `training_gpu.ROWS` where the line does not say."""
    from training_gpu import ROWS

    for line in file.read_text().splitlines():
        if line.startswith("RESULT "):
            one: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            ours, _, variant = one["system"].partition(" ")
            if ours == "r1core":
                measured = {"speed": one["tokens_per_second"], "peak memory": one["peak_gib"]}
                yield variant, one["shape"], one.get("rows", ROWS[one["shape"]]), one["device"], measured


def on_gpu(recorded: Iterator[tuple[str, str, int, str, dict[str, float]]]) -> Iterator[dict[str, object]]:
    for variant, shape, rows, device, measured in recorded:
        told = gpu_forecast(shape, rows, variant, device)
        if told is None:
            print(f"{device}: not in r1core.forecast.hardware, left out", file=sys.stderr)
            continue
        what = f"{shape} {variant}, {rows} x {LENGTH:,} tokens"
        if speed := measured.get("speed"):
            seconds = told.parts["passes"]
            yield compared(f"{what}, a step", 1e3 * seconds, 1e3 * rows * LENGTH / speed, "ms", device)
        if peak := measured.get("peak memory"):
            torchs = told.memory.total - told.memory.libraries  # torch counts what it allocates, not its context
            yield compared(f"{what}, peak memory", torchs / 2**30, peak, "GiB", device)


def forecast_of(selection: Selection) -> Forecast:
    """The forecast of a recipe on this machine."""
    bench = open_bench(selection)
    recipe, shape = bench.recipe, read_shape(Path(bench.base.directory()))
    assert shape is not None
    rows = train_sample(bench).rows_like(recipe)
    table = table_of(shape, recipe.adapter, recipe.strategy, recipe.train)
    told = here(table, rows, recipe, private=bench.privacy is not None)
    assert isinstance(told, Forecast), told
    return told


def of_run(place: Path) -> Iterator[dict[str, object]]:
    """A run directory: its manifest's figures."""
    manifest = json.loads((place / "manifest.json").read_text())
    stage, device = manifest["stages"]["train"], manifest["stages"]["train"]["device"]
    told = forecast_of(select(str(place.absolute()), None, (), None, (), ()))
    where = f"{device['cpu']}, {device['cores']} CPUs"
    name = f"{place.name}, {stage['figures']['train_steps']} steps"
    yield compared(f"{name}, CPU time", told.cpu_seconds, stage["figures"]["train_cpu_seconds"], "s", where)
    yield compared(f"{name}, stage train by the clock", told.seconds, stage["seconds"], "s", where)
    peak = stage["peak_memory_bytes"] / 1e9
    yield compared(f"{name}, peak memory of a process", told.memory.total / 1e9, peak, "GB", where)


def of_the_demonstration() -> Iterator[dict[str, object]]:
    """The recorded cost of the medical run, where this machine is like the one that it was measured on."""
    rows = json.loads((RESULTS / "adapt.json").read_text())
    cost = next(row for row in rows if row["figure"].startswith("training cost"))
    if cost["machine"] != machine():
        print(f"adapt.json is of {cost['machine']}, this is {machine()}: compared all the same", file=sys.stderr)
    told = forecast_of(Selection("medical"))
    yield compared("medical, CPU time of training", told.cpu_seconds, float(cost["value"]), "s", cost["machine"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, action="append", default=[], help="a run directory made on this machine")
    parser.add_argument("--read", type=Path, help="RESULT lines of training_gpu.py instead of its results file")
    parser.add_argument("--no-demo", action="store_true", help="leave the recorded medical run out")
    chosen = parser.parse_args()
    rows = list(on_gpu(from_lines(chosen.read) if chosen.read else from_results()))
    if not chosen.no_demo:
        rows += of_the_demonstration()
    for place in chosen.run:
        rows += of_run(place)
    write("forecast", rows)


if __name__ == "__main__":
    main()
