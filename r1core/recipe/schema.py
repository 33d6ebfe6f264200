"""The recipe as typed tables. Unknown keys are refused at every level; defaults and units stand here and nowhere else.

`STAGE_SECTIONS` says which keys each stage reads, and so what its fingerprint covers.
Sections under `[plugins.<name>]` are validated by that plugin's own config model, not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from r1core.recipe.continual import Continual
from r1core.recipe.curriculum import Curriculum
from r1core.recipe.pool import Pool
from r1core.recipe.strategy import Strategy
from r1core.recipe.table import Fraction, Positive, Table
from r1core.recipe.tasks import Kind, OwnTask, labels, labels_of_free_text, named_once, taking_text
from r1core.recipe.training import Adapter, Train
from r1core.recipe.vision import Vision


class Run(Table):
    """[run]: what this run is called and which plugins take part."""

    name: str = Field(
        min_length=1, pattern=r"^[A-Za-z0-9._-]+$", description="letters, digits, dots, hyphens and underscores"
    )
    seed: int = Field(default=0, ge=0, lt=2**32)
    plugins: list[str] = Field(default_factory=list)
    privacy: Literal["open", "required", "none"] = Field(
        default="open",
        description="`required` = rows of groups (patients) are not trained on without a privacy policy; `none` = they"
        " are, and whoever writes so answers for it; `open` = nothing is asked",
    )
    domain: str = Field(default="", description="filled in by r1core, so that a run can be opened by its directory")


class Model(Table):
    """[model]: the base model, by exactly one of a source's name, a directory or a hub id."""

    base: str | None = None
    path: Annotated[Path | None, Field(strict=False)] = None
    hub: str | None = None
    revision: str | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int = Field(
        default=0, ge=0, description="compute threads of a lone process; 0 = one a core, and work may be split"
    )
    processes: int = Field(default=0, ge=0, description="processes that share long work; 0 = one a core, 1 on a GPU")
    attention: Literal["sdpa", "eager"] = "sdpa"
    template: Literal["chat", "plain"] = Field(
        default="chat",
        description="the tokenizer's chat template, or each message and a newline (fewer tokens a row)",
    )
    vision: Vision | None = Field(default=None, description="an image encoder for records with images; absent = none")

    @model_validator(mode="after")
    def _exactly_one(self) -> Model:
        given = [name for name in ("base", "path", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"expected exactly one of base, path, hub; found {found}")
        if self.threads > 1 and self.processes > 1:
            raise ValueError("each of several processes computes with one thread; set threads or processes")
        return self


class Columns(Table):
    """[data.columns]: how the columns of the user's own files are called."""

    text: str = "text"
    answer: str = "answer"
    reasoning: str | None = Field(default=None, description="reasoning before the answer (models with `<think>`)")
    id: str | None = None
    group: str | None = None
    as_of: str | None = None
    facts: str | None = None
    cluster: str | None = None
    task: str | None = None
    images: str | None = Field(default=None, description="a path, or in JSONL a list of paths, beside the data file")


class DataFiles(Table):
    """[data.files]: the user's own records; `test` and `val` are split off `train` by a stable hash where absent."""

    train: Annotated[Path, Field(strict=False)]
    val: Annotated[Path | None, Field(strict=False)] = None
    test: Annotated[Path | None, Field(strict=False)] = None


class Data(Table):
    """[data]: where records come from, which are refused, how long they may be."""

    source: str | None = Field(default=None, description="name of a data set that a plugin or domain provides")
    files: DataFiles | None = None
    columns: Columns = Columns()
    prompt: str = Field(default="{text}", description="user message made from a record of one's own files")
    system: str = Field(default="", description="system message; empty for none")
    choices: list[str] | None = Field(default=None, description="label set; absent = every answer seen in train")
    kind: Kind = "choice"
    tasks: list[OwnTask] = Field(
        default_factory=list, description="with `columns.task`: where one of several tasks differs from the rest"
    )
    max_tokens: Positive = Field(default=256, description="a longer row is an error, never cut silently")
    max_bad_fraction: Fraction = Field(default=0.01, description="share of quarantined rows that stops the run")
    max_rows: int = Field(default=0, ge=0, description="use at most this many training rows; 0 = all")
    max_eval_rows: int = Field(default=0, ge=0, description="use at most this many rows of val and of test; 0 = all")

    @model_validator(mode="after")
    def _one_origin(self) -> Data:
        if (self.source is None) == (self.files is None):
            raise ValueError("expected exactly one of data.source and data.files")
        if self.kind == "text" and self.choices is not None:
            raise labels_of_free_text()
        named_once(self.tasks, self.columns.task)
        return self

    @field_validator("prompt")
    @classmethod
    def _takes_the_text(cls, prompt: str) -> str:
        return taking_text(prompt)

    @field_validator("choices")
    @classmethod
    def _are_labels(cls, choices: list[str] | None) -> list[str] | None:
        return labels(choices)


class Evaluate(Table):
    """[evaluate]: which systems are compared on the test split."""

    baselines: bool = True
    base_model: bool = True
    batch_size: Positive = 32
    max_new_tokens: Positive = 12
    reasoning_tokens: int = Field(
        default=0, ge=0, description="tokens of reasoning before a free-running answer; labels are scored without"
    )
    metrics: list[str] = Field(default_factory=list, description="further metrics, `plugin/name`")


class Generate(Table):
    """[generate]: decoding. `temperature = 0` is greedy."""

    max_new_tokens: Positive = 64
    reasoning_tokens: int = Field(
        default=0, ge=0, description="tokens of reasoning before an answer, for models with `<think>` blocks; 0 = none"
    )
    temperature: float = Field(default=0.0, ge=0.0, strict=False)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0, strict=False)
    beams: Positive = Field(default=1, description="width of the beam search; more than 1 needs `temperature = 0`")
    kv_bits: Literal[0, 4, 5, 6] = Field(
        default=0, description="bits of a number of the key/value cache, packed; 0 = as the model computes them"
    )
    stop: list[str] = Field(default_factory=list, description="an answer ends before any of these")
    require: list[str] = Field(default_factory=list, description="an answer may not end before it holds each of these")
    json_schema: Annotated[Path | None, Field(strict=False)] = Field(
        default=None, description="file of a JSON Schema; answers are documents of it"
    )
    regex: str = Field(default="", description="answers match this as a whole")


class Report(Table):
    """[report]: what the report shows besides the figures; `demo_prompt` is answered with and without the rules."""

    title: str = ""
    examples: int = Field(default=6, ge=0)
    demo_prompt: str = ""
    demo_facts: Annotated[Path | None, Field(strict=False)] = None
    demo_prefix: str = Field(default="", description="start of the answer, given to the model")
    demo_task: str = Field(default="", description="task of `demo_prompt`, for a pool of several")


class Recipe(Table):
    """The whole recipe."""

    run: Run
    model: Model
    data: Data
    adapter: Adapter = Adapter()
    strategy: Strategy = Strategy()
    pool: Pool = Pool()
    train: Train = Train()
    curriculum: Curriculum = Curriculum()
    continual: Continual = Continual()
    evaluate: Evaluate = Evaluate()
    generate: Generate = Generate()
    report: Report = Report()
    rewards: dict[str, float] = Field(default_factory=dict, description="weight of each reward, `plugin/name`")
    layers: dict[str, float] = Field(default_factory=dict, description="weight of each layer's own loss, `plugin/name`")
    plugins: dict[str, dict[str, object]] = Field(default_factory=dict)


class Reads(NamedTuple):
    """A recipe table that a stage reads: all of it, `only` these keys, or all `but` these, which change nothing."""

    table: str
    only: tuple[str, ...] = ()
    but: tuple[str, ...] = ()

    def of(self, table: Mapping[str, object]) -> dict[str, object]:
        """The keys that count, of the resolved table."""
        return {k: v for k, v in table.items() if k not in self.but and (not self.only or k in self.only)}


_RUN = Reads("run", but=("name", "plugins"))  # the plugin lock covers the plugins
STAGE_SECTIONS: dict[str, tuple[Reads, ...]] = {
    "prepare": (
        _RUN,
        Reads("model", but=("precision", "threads", "processes", "attention")),
        Reads("data"),
        Reads("train", only=("objective",)),
        Reads("pool", only=("prepend",)),
        Reads("plugins"),
    ),
    "train": (
        _RUN,
        Reads("model"),
        Reads("adapter"),
        Reads("strategy"),
        Reads("pool", but=("extends",)),  # as of `continual.from`: what stands in that run counts
        Reads("train", but=("checkpoint_every", "keep_checkpoints")),
        Reads("curriculum"),
        Reads("continual", but=("from",)),  # what stands in that run counts as inputs, wherever it lies
        Reads("layers"),
        Reads("plugins"),
    ),
    "evaluate": (
        _RUN,
        Reads("model"),
        Reads("data", but=("prompt", "system", "max_tokens", "max_bad_fraction", "max_rows", "max_eval_rows")),
        Reads("train", only=("packing", "objective")),
        Reads("pool", only=("prepend",)),
        Reads("continual", only=("naive",)),
        Reads("evaluate"),
        Reads("generate", but=("temperature", "top_p", "kv_bits")),
        Reads("report", but=("title", "examples")),
        Reads("plugins"),
    ),
    "report": (Reads("run"), Reads("evaluate"), Reads("generate"), Reads("report"), Reads("plugins")),
}
"""What of the recipe each stage reads: what its fingerprint covers, besides the outputs of the stages before it.

Keys are left out by name, so that a new key counts until somebody has made sure that it does not.
"""


def read_by(stage: str, recipe: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    """The part of a resolved recipe, as JSON, that a stage's fingerprint covers."""
    return {reads.table: reads.of(recipe[reads.table]) for reads in STAGE_SECTIONS[stage]}
