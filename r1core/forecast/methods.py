"""Forecasts of whole trainings: on this machine's CPU, on named GPUs, and for methods beside the adapter's own.

PPO and the pool of adapters are told from the same model of a step, by what they do more; each assumption is a line of
the forecast. What they assume was measured nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from r1core.api import UserError
from r1core.forecast import accelerator, processor
from r1core.forecast.hardware import Hardware
from r1core.forecast.memory import CONTEXT_BYTES, Memory, memory_of
from r1core.forecast.processor import Core
from r1core.forecast.table import Table
from r1core.forecast.work import OTHER_LAUNCHES, Rows, Work, step_of, steps_of, stretch_of, work_of
from r1core.recipe.problems import did_you_mean
from r1core.recipe.schema import Recipe
from r1core.recipe.training import Train

METHODS = ("lora", "ppo", "multitask")
UNMASKED = ("padded", "none")  # packings whose passes have no mask of their own
PPO_RESPONSE = 256
"""Tokens that PPO samples for each prompt."""
PPO_EPOCHS = 4
"""Passes of PPO's update over what it sampled (arXiv:1707.06347, section 5; four are usual for language models)."""
POOL = 8
"""Adapters of the pool that every token passes through, for a soft mixture."""
SUMMED_BYTES = 12
"""Of a trained weight, while processes sum their gradients: its own, all in one message, and the sum."""
GPU_START_SECONDS = 60.0
"""Until the first step on a GPU: libraries, weights, compiling; assumed."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What the guide says a method takes, in its own setting."""

    method: str
    hardware: str
    batch_size: int
    hours: str


GUIDE = (
    Claim("lora", "4xA100", 64, "12-15"),
    Claim("ppo", "8xA100", 32, "24-30"),
    Claim("multitask", "8xA100", 16, "36-42"),
)
"""The guide's rows. It states neither a model nor a number of tokens, so nothing here is fitted to them."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a training will take.

    Parameters
    ----------
    where : in words.
    workers : processes or GPUs.
    seconds : by the clock, start included. cpu_seconds : of all processes, 0 on GPUs.
    tokens : that all passes of all workers read.
    memory : of one worker. together : bytes of all of them; there : bytes that the machine, or one GPU, has.
    parts : seconds of a step, by what takes them.
    basis : what the figures rest on, one line each. assumed : what nobody stated, one line each.
    pace : the speed of one core, in words; empty on GPUs.
    """

    method: str
    where: str
    workers: int
    steps: int
    tokens: float
    seconds: float
    cpu_seconds: float
    memory: Memory
    together: float
    there: float
    parts: dict[str, float]
    basis: tuple[str, ...]
    assumed: tuple[str, ...]
    pace: str = ""

    @property
    def fits(self) -> bool:
        """Whether the memory suffices: of the machine for all processes, of a GPU for one."""
        return (self.together if self.cpu_seconds else self.memory.total) <= self.there


def method_named(text: str) -> str:
    """A method.

    Raises
    ------
    UserError : for another word, with the nearest one.
    """
    if text not in METHODS:
        near = did_you_mean(text, METHODS)
        fix = f"did you mean {near!r}?" if near else f"use one of: {', '.join(METHODS)}"
        raise UserError(f"--method {text!r}: no such method", fix=fix)
    return text


def on_cpu(
    table: Table, rows: Rows, recipe: Recipe, core: Core, *, private: bool, held: float, there: float
) -> Forecast:
    """Forecast the recipe's own training on this machine's cores.

    Parameters
    ----------
    private : a privacy policy has it run in one process.
    held : bytes that a process holds besides the model: libraries, plugins, records.
    there : bytes of this machine's memory.
    """
    train = recipe.train
    steps, tokens = steps_of(rows, train), rows.number * rows.length
    asked = {"parameters": table.base, "tokens": tokens, "batch_size": train.batch_size}
    workers = processor.processes_of(recipe.model, private=private, **asked)  # type: ignore[arg-type]
    step = step_of(rows, train, workers)
    work = work_of(table, step, checkpointed=train.gradient_checkpointing)
    each = processor.seconds_of(work, core)
    size = 2 if recipe.model.precision == "bf16" else 4
    memory = memory_of(
        table, step, bytes_each=size, compiled=False, eager=recipe.model.attention == "eager",
        checkpointed=train.gradient_checkpointing, masked=train.packing not in UNMASKED, held=held,
    )  # fmt: skip
    if workers > 1:
        memory = replace(memory, trained=memory.trained + SUMMED_BYTES * table.trained)
    alone = memory.total - memory.weights - memory.libraries
    basis = [
        f"{work.flop / 1e9:,.3g} GFLOP a step and process at {core.speed / 1e9:.0f} GFLOP/s in fp32, "
        f"memory at {core.bandwidth / 1e9:.0f} GB/s (probed now, CPU seconds of one core, best of several)"
    ]
    if workers > 1:
        basis.append(
            f"{workers} processes, {processor.UNEVEN - 1:.0%} longer than an even share: all wait for the last"
        )
    assumed = ["nothing else keeps these cores busy"]
    if recipe.model.precision == "bf16" or (recipe.model.precision == "auto" and processor.has_bf16()):
        assumed.append("fp32, though bf16 may be taken here and be up to four times as fast where the processor has it")
    if recipe.model.threads > 1 and workers == 1:
        assumed.append(
            f"model.threads = {recipe.model.threads} are told as one: on short rows more threads mostly wait"
        )
    busy = steps * each * stretch_of(train, steps)
    wall = busy * (processor.UNEVEN if workers > 1 else 1.0) + processor.START_SECONDS
    name = f"{workers} processes of this CPU" if workers > 1 else "one core of this CPU"
    return Forecast(
        method="lora", where=name, workers=workers, steps=steps, tokens=steps * workers * step.tokens, seconds=wall,
        cpu_seconds=workers * busy, memory=memory, together=memory.total + (workers - 1) * alone, there=there,
        parts={"passes": each}, basis=tuple(basis), assumed=tuple(assumed),
        pace=f"{work.flop / max(1.0, step.tokens) / 1e9:.2g} GFLOP each at {core.speed / 1e9:.0f} GFLOP/s",
    )  # fmt: skip


def on_gpus(table: Table, rows: Rows, train: Train, hardware: Hardware, method: str = "lora") -> Forecast:
    """Forecast a training by data parallelism, each GPU with the whole model and its part of the batch."""
    gpu, workers = hardware.gpu, min(hardware.number, train.batch_size)
    build: Callable[..., _Method] = {"lora": _lora, "ppo": _ppo, "multitask": _pool}[method]
    made = build(table, rows, train, hardware)
    steps = steps_of(rows, train)
    spread = 1.0 if workers == 1 else accelerator.TOGETHER
    seconds = steps * stretch_of(train, steps) * sum(made.parts.values()) / spread + GPU_START_SECONDS
    basis = [
        f"{gpu.name}: {gpu.bf16 / 1e12:g} TFLOP/s bf16, {gpu.bandwidth / 1e12:g} TB/s, {gpu.memory} GiB "
        f"({gpu.source}); "
        f"{accelerator.MULTIPLIED:.0%} and {accelerator.COPIED:.0%} of them reached, set by two runs on one H200"
    ]
    if workers > 1:
        share = f"{accelerator.TOGETHER:.0%} of their number (as two reached; assumed for more)"
        basis.append(f"data parallel over {workers} GPUs at {share}")
    if workers < hardware.number:
        basis.append(f"a batch of {train.batch_size} rows keeps {workers} of {hardware.number} GPUs busy")
    basis.append(f"training only, with {GPU_START_SECONDS:.0f} s to start; no evaluation")
    return Forecast(
        method=method, where=str(hardware), workers=workers, steps=steps, tokens=steps * workers * made.tokens,
        seconds=seconds, cpu_seconds=0.0, memory=made.memory, together=workers * made.memory.total,
        there=gpu.memory * 2.0**30, parts=made.parts, basis=tuple(basis), assumed=tuple(made.assumed),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Method:
    """One GPU's part of a step: seconds by what takes them, tokens read, memory, and what was assumed."""

    parts: dict[str, float]
    tokens: float
    memory: Memory
    assumed: tuple[str, ...]


def _lora(table: Table, rows: Rows, train: Train, hardware: Hardware, adapters: int = 1) -> _Method:
    workers = min(hardware.number, train.batch_size)
    flash = train.packing == "best_fit"
    step = step_of(rows, train, workers, flash=flash)
    again = train.gradient_checkpointing
    work = work_of(table, step, checkpointed=again, adapters=adapters)
    compiled = train.compile != "off"
    recorded = flash and compiled and hardware.number == 1 and not table.adapter.dropout
    memory = memory_of(
        table, step, bytes_each=2, compiled=compiled, checkpointed=again,
        masked=not flash and train.packing not in UNMASKED, adapters=adapters, held=float(CONTEXT_BYTES),
    )  # fmt: skip
    assumed = []
    if table.adapter.kind != "lora" and table.adapter.kind != "rslora":
        assumed.append(
            f"adapter.kind = {table.adapter.kind!r}: its own passes are counted, and were not measured on a GPU"
        )
    if not recorded:
        assumed.append(
            "the host launches each kernel, 10 microseconds apiece (a lone GPU with best_fit packing replays)"
        )
    return _Method(
        {"passes": accelerator.seconds_of(work, hardware.gpu, recorded=recorded)}, step.tokens, memory, tuple(assumed)
    )


def _pool(table: Table, rows: Rows, train: Train, hardware: Hardware) -> _Method:
    made = _lora(table, rows, train, hardware, POOL)
    said = f"a pool of {POOL} adapters like [adapter], all computed for every token and mixed softly, all trained:"
    said += f" {POOL * table.trained:,} weights, where the table counts one"
    return replace(made, assumed=(said, "the samples of all tasks are counted together", *made.assumed))


def _ppo(table: Table, rows: Rows, train: Train, hardware: Hardware) -> _Method:
    """Sample, score by the base as reference, then some epochs of clipped updates on what was sampled."""
    shape, gpu = table.shape, hardware.gpu
    mine = min(float(train.batch_size), rows.number) / min(hardware.number, train.batch_size)
    prompt, answer = rows.length, float(PPO_RESPONSE)
    whole = Rows(rows.number, prompt + answer + 1, answer)
    update = _lora(table, whole, train, hardware)
    forward = sum(w.count * w.share for w in shape.matrices)
    read = step_of(whole, _one_pass(train), min(hardware.number, train.batch_size), flash=True)
    scored = Work(
        flop=2 * forward * read.tokens + 4 * read.pairs * shape.queries * shape.blocks + 2 * shape.head * read.answered,
        launches=_forward_launches(table),
    )
    prefill = Work(flop=2 * forward * mine * prompt, launches=_forward_launches(table))
    cached = mine * (prompt + answer / 2) * 2 * shape.keys * shape.blocks
    token = accelerator.decode_seconds(shape.parameters, cached, gpu)
    token += _forward_launches(table) * accelerator.LAUNCHED_SECONDS
    sampling = accelerator.seconds_of(prefill, gpu, recorded=False) + answer * token
    parts = {
        "sampling": sampling,
        "reference": accelerator.seconds_of(scored, gpu, recorded=False),
        "updates": PPO_EPOCHS * update.parts["passes"],
    }
    cache = 2 * mine * (prompt + answer) * 2 * shape.keys * shape.blocks
    memory = replace(update.memory, logits=update.memory.logits + cache)
    assumed = (
        f"each sample is a prompt; {PPO_RESPONSE} tokens are sampled for it, {mine:g} prompts of a GPU at once, each "
        "token reading all weights and the cache once",
        "the reference is the base with its adapter off: one forward pass over prompt and answer, no memory of its own",
        f"{PPO_EPOCHS} epochs of updates on what was sampled; the value head stands on the policy's own blocks",
        "rewards take no time (rules, no reward model)",
    )
    tokens = mine * (prompt + answer) + read.tokens + PPO_EPOCHS * update.tokens
    return _Method(parts, tokens, memory, (*assumed, *update.assumed))


def _one_pass(train: Train) -> Train:
    """The same training in one pass a step: nothing is kept for a backward pass."""
    return train.model_copy(update={"packing": "best_fit", "micro_batch_tokens": 0})


def _forward_launches(table: Table) -> float:
    """Kernels of a forward pass, a block's other operations counted as half of those of both passes."""
    return table.shape.blocks * OTHER_LAUNCHES / 2 + len(table.shape.matrices) + 2 * len(table.low_rank)
