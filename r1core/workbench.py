"""One run, opened: the resolved recipe, its plugins, the composed components and the run directory.

Every verb that works on a run starts here, so that check, prepare, train, evaluate, generate and report see the same
recipe and the same components. Nothing in this module reads a weight or imports torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from r1core.api import (
    Augment,
    Callback,
    DatasetSource,
    Difficulty,
    Domain,
    Example,
    LayerSpec,
    Metric,
    ModelSource,
    Plan,
    PrivacyPolicy,
    Problem,
    QualityGate,
    Task,
    UserError,
)
from r1core.compose import Chain, ConstraintSet, one_privacy, pick, unique
from r1core.data import codec
from r1core.data.files import FileSource
from r1core.data.images import IMAGE, ImageBook
from r1core.data.public import PublicTexts
from r1core.data.tokenizer import stored_tokenizer, tokenizer_at
from r1core.data.tokens import Renderer
from r1core.model.fusion.attach import vision_specs
from r1core.model.resolve import BaseModel, resolve
from r1core.plugins.find import load_domain
from r1core.plugins.loading import Plugins
from r1core.recipe.continued import EarlierRecipe
from r1core.recipe.load import Resolved
from r1core.recipe.load import resolve as resolve_recipe
from r1core.recipe.problems import InvalidInput, collecting, in_order
from r1core.recipe.schema import Data, Recipe, read_by
from r1core.runs.chain import EarlierRun, chain_of, files_read
from r1core.runs.crew import ALONE, Crew
from r1core.runs.directory import RunDirectory
from r1core.runs.files import tree_digest
from r1core.runs.fingerprint import Fingerprint, source_hash, stage_fingerprint
from r1core.runs.inputs import files_of, model_files, named_files
from r1core.selection import Selection

STAGE_ROOMS: dict[str, tuple[str, ...]] = {
    "prepare": ("api", "compose.py", "data"),
    "train": ("api", "compose.py", "data", "model", "recipe", "runs/chain.py", "train"),
    "evaluate": ("api", "compose.py", "data", "model", "decode", "evaluate", "runs/chain.py"),
    "report": ("api", "data", "decode", "evaluate", "runs"),
}
"""Rooms of the core whose source a stage's result depends on."""


@dataclass
class Workbench:
    """An opened run. Build it with `open_bench`."""

    selection: Selection
    domain: Domain | None
    resolved: Resolved
    recipe: Recipe
    plugins: Plugins
    directory: Path
    crew: Crew = ALONE
    """The processes that work on this run."""

    @cached_property
    def run(self) -> RunDirectory:
        """The run directory, made at the first access."""
        return RunDirectory(self.directory)

    @cached_property
    def chain(self) -> Chain:
        """The preprocessing chain."""
        return Chain(self.components("preprocess"), () if self.images is None else (IMAGE,))

    @cached_property
    def images(self) -> ImageBook | None:
        """Numbers of the run's images; None without [model.vision]."""
        return None if self.recipe.model.vision is None else ImageBook()

    @cached_property
    def constraints(self) -> ConstraintSet:
        """All decode constraints."""
        return ConstraintSet(self.components("decode_constraint"))

    @cached_property
    def base(self) -> BaseModel:
        """The base model; nothing of it is loaded."""
        sources: list[ModelSource] = self.components("model_source")
        return resolve(self.recipe.model, sources)

    @cached_property
    def source(self) -> DatasetSource:
        """The data set that the recipe names, or the user's own files."""
        if self.recipe.data.files is not None:
            return FileSource(self.recipe.data)
        return pick(self._sources, self.recipe.data.source or "", "data set", "data.source")

    @cached_property
    def public(self) -> DatasetSource | None:
        """The prompts that anyone may read, if the recipe names any.

        Raises
        ------
        UserError : for an unknown data set, or a file that cannot be read.
        """
        adapter = self.recipe.adapter
        if adapter.public_texts is not None:
            return PublicTexts(adapter.public_texts, self.recipe.data)
        if adapter.public_source is None:
            return None
        return pick(self._sources, adapter.public_source, "data set", "adapter.public_source")

    @cached_property
    def _sources(self) -> dict[str, DatasetSource]:
        """The data sets of the domain and the plugins by name."""
        own = self.domain.sources if self.domain else ()
        return unique([*own, *self.components("dataset_source")], "data set")

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks of the data set by name, in its order.

        Raises
        ------
        UserError : for a data set without one.
        """
        if not self.source.tasks:
            raise UserError(f"{self.source.name} has no task", fix="mend the data set, or take another")
        return self.source.tasks

    @property
    def has_labels(self) -> bool:
        """Whether any task has a label set."""
        return any(task.choices for task in self.tasks.values())

    @cached_property
    def gates(self) -> dict[str, QualityGate]:
        """Quality gates by name."""
        return unique(self.components("quality_gate"), "quality gate")

    @cached_property
    def augments(self) -> list[Augment]:
        """Augmentations in name order."""
        return [one for _, one in sorted(unique(self.components("augment"), "augmentation").items())]

    @cached_property
    def metrics(self) -> list[Metric]:
        """The further metrics that the recipe names."""
        found: dict[str, Metric] = unique(self.components("metric"), "metric")
        return [pick(found, name, "metric", "evaluate.metrics") for name in self.recipe.evaluate.metrics]

    @cached_property
    def privacy(self) -> PrivacyPolicy | None:
        """The privacy policy, if any."""
        return one_privacy(self.components("privacy"))

    @cached_property
    def difficulty(self) -> Difficulty | None:
        """The plugin's measure that the curriculum names, if it names one."""
        name = self.recipe.curriculum.difficulty
        found: dict[str, Difficulty] = unique(self.components("difficulty"), "difficulty")
        return pick(found, name, "difficulty", "curriculum.difficulty") if "/" in name else None

    @cached_property
    def earlier(self) -> list[EarlierRun]:
        """The runs that this one continues, oldest first; none where it continues none."""
        start = self.recipe.continual.from_
        return [] if start is None else chain_of(start, self.directory)

    @cached_property
    def start(self) -> Path | None:
        """The adapter that training starts from; None for an untrained one."""
        return self.earlier[-1].run.adapter if self.earlier else None

    @property
    def compared(self) -> list[Path]:
        """What training writes of plain sequential tuning."""
        wanted = self.earlier and self.recipe.continual.naive
        return [self.run.naive / "adapter", self.run.naive / "metrics.jsonl"] if wanted else []

    @cached_property
    def callbacks(self) -> list[Callback]:
        """Observers in name order."""
        found: list[Callback] = self.components("callback")
        return sorted(found, key=lambda c: c.name)

    def layer_specs(self, config: object) -> list[LayerSpec]:
        """Extra layers for a model with this Hugging Face config.

        Raises
        ------
        UserError : for two layers of one site and name, or a weight in `[layers]` that names no layer.
        """
        vision = self.recipe.model.vision
        own = [] if vision is None or self.images is None else vision_specs(vision, self.images)
        specs: dict[str, LayerSpec] = unique([*own, *self.components("extra_layer", model=config)], "layer")
        for name in self.recipe.layers:
            pick(specs, name, "layer", f"layers.{name}")
        return [spec for _, spec in sorted(specs.items())]

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's tokenizer (imports transformers)."""
        return tokenizer_at(self.base.directory(), self.base.revision)

    @cached_property
    def encoder(self) -> Any:
        """What makes token ids of texts: the tokenizer, or its file read without transformers where that is equal."""
        plain = self.recipe.model.template == "plain"
        return (stored_tokenizer(self.base.directory()) if plain else None) or self.tokenizer

    @cached_property
    def renderer(self) -> Renderer:
        """Messages to text and tokens, as the recipe's template says."""
        routed = self.recipe.train.objective == "multitask"
        return Renderer(
            self.encoder,
            self.chain.kinds,
            template=self.recipe.model.template,
            routed=routed,
            task_token=routed and self.recipe.pool.prepend,
            images=self.images,
            reasoning=self.recipe.train.reasoning,
        )

    def measured(self, split: Path) -> list[Example]:
        """The rows of a prepared split as they are measured: gold answers without reasoning."""
        return [self.renderer.measured(row) for row in codec.read(split, self.chain.kinds)]

    def components(self, hook: str, **arguments: Any) -> list[Any]:
        """All plugins' components of one hook."""
        return [made.component for made in self.plugins.call(hook, **arguments)]

    def plan(self) -> Plan:
        """The resolved recipe for `validate` hooks."""
        return Plan(self.recipe.model_dump(mode="json"), self.resolved.origins)

    def fingerprint(self, stage: str, inputs: Mapping[str, str], components: Mapping[str, str]) -> Fingerprint:
        """A stage's fingerprint over the recipe keys, the rooms and the files that it reads."""
        return stage_fingerprint(
            stage,
            recipe_sections=read_by(stage, self.recipe.model_dump(mode="json")),
            inputs={
                **inputs,
                "model": self.base.fingerprint,
                **self._domain_source,
                **self._public_prompts(stage),
                **self._images_of(stage),
                **{name: tree_digest(path) for name, path in self._other_runs(stage).items()},
            },
            source=source_hash(*STAGE_ROOMS[stage]),
            plugins=self.plugins.lock(),
            components=components,
            files=self.input_files(stage),
        )

    @property
    def _domain_source(self) -> dict[str, str]:
        """Hash of the domain's own Python files: what makes its records is in no plugin's lock entry."""
        if self.domain is None:
            return {}
        return {"domain": tree_digest(self.domain.resources, keep=lambda path: path.suffix == ".py")}

    def _public_prompts(self, stage: str) -> dict[str, str]:
        """Hash of the public prompts that training reads."""
        return {"public": self.public.fingerprint()} if stage == "train" and self.public is not None else {}

    def _images_of(self, stage: str) -> dict[str, str]:
        """Hash of the records' images, which stages behind `prepare` read themselves."""
        return {"images": self.source.fingerprint()} if self._tower(stage) else {}

    def _tower(self, stage: str) -> dict[str, Path]:
        """The image encoder, where a stage reads it."""
        vision = self.recipe.model.vision
        return {} if vision is None or stage not in ("train", "evaluate") else {"model.vision": vision.path}

    def _other_runs(self, stage: str) -> dict[str, Path]:
        """What a stage reads of the runs that this one continues, or whose pool it extends, and the image encoder."""
        extends = self.recipe.pool.extends if stage == "train" else None
        pool = {} if extends is None else {"pool.extends: adapter": extends / "adapter"}
        return files_read(stage, self.earlier, self.recipe.continual) | pool | self._tower(stage)

    def input_files(self, stage: str) -> dict[str, Path]:
        """The local files that a stage reads besides the run's own, by a name for the manifest."""
        return self._components_files(stage) | self._other_runs(stage)

    def _components_files(self, stage: str) -> dict[str, Path]:
        if stage == "prepare":
            parts = named_files([self.source, *self.chain.steps, *self.gates.values(), *self.augments])
            origin = {f"{self.base.name}: {path.name}": path for path in files_of(self.base.source)}
            return parts | origin | model_files(Path(self.base.directory()))
        if stage == "train":
            return named_files([self.privacy, self.difficulty, self.public])
        if stage == "evaluate":
            facts = self.recipe.report.demo_facts
            asked = {} if facts is None else {f"report.demo_facts: {facts.name}": facts}
            return named_files([*self.constraints.constraints, *self.metrics]) | asked
        return {}

    def tell(self, stage: str, status: Any) -> None:
        """Tell every callback that a stage began or ended."""
        for callback in self.callbacks:
            callback.on_stage(stage, status)


def open_bench(selection: Selection) -> Workbench:
    """Resolve the recipe, load the plugins that it names and validate their sections.

    Raises
    ------
    InvalidInput : with every problem of the recipe at once.
    UserError : for a missing, broken or incompatible plugin or domain.
    """
    if selection.domain is None and selection.recipe is None and selection.earlier is None:
        raise UserError("no domain and no recipe", fix="r1core adapt medical, or --recipe my.toml")
    earlier = EarlierRecipe(selection.earlier) if selection.earlier else None
    named = selection.domain or (earlier and earlier.domain)
    domain = load_domain(named) if named else None
    layer = None if earlier and earlier.domain == named else domain  # an earlier run's recipe holds its domain's
    resolved = resolve_recipe(domain=layer, file=selection.recipe, sets=selection.sets, earlier=earlier)
    try:
        return _opened(selection, domain, resolved)
    except InvalidInput as refused:
        raise InvalidInput(_all_at_once(selection, resolved, refused.problems)) from refused


def _opened(selection: Selection, domain: Domain | None, resolved: Resolved) -> Workbench:
    recipe = resolved.require()
    if domain is not None:
        recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"domain": domain.name})})
    directory = selection.run or Path("runs") / recipe.run.name
    bench: list[Workbench] = []
    plugins = Plugins.load(
        recipe.run.plugins,
        configs=recipe.plugins,
        domain=domain.name if domain else "",
        seed=recipe.run.seed,
        run_dir=directory,
        tokenizer_factory=lambda: bench[0].tokenizer,
        block=selection.blocked,
        files=selection.files,
        resolved=resolved,
    )
    recipe = recipe.model_copy(update={"plugins": plugins.sections()})  # defaults filled in, paths absolute
    bench.append(Workbench(selection, domain, resolved, recipe, plugins, directory))
    return bench[0]


def _all_at_once(selection: Selection, resolved: Resolved, known: Sequence[Problem]) -> list[Problem]:
    """The known problems, and those that plugins and data have besides, in the order of the recipe's lines."""
    found, draft = list(known), resolved.draft
    run, sections = draft.get("run"), draft.get("plugins", {})
    names = run.get("plugins") if isinstance(run, dict) else None
    if resolved.recipe is None and isinstance(names, list) and isinstance(sections, dict):
        tables = {name: table for name, table in sections.items() if isinstance(table, dict)}
        with collecting(found):
            Plugins.load(
                [name for name in names if isinstance(name, str)],
                configs=tables,
                block=selection.blocked,
                files=selection.files,
                resolved=resolved,
            )
    with contextlib.suppress(ValidationError):  # which is among the known problems
        found += column_problems(Data.model_validate(draft.get("data")), resolved)
    return in_order(dict.fromkeys(found))


def column_problems(data: Data, resolved: Resolved) -> list[Problem]:
    """A problem for each column that the recipe names and the user's files lack, or for a file without records."""
    if data.files is None:
        return []
    try:
        missing = FileSource(data).columns_missing()
    except UserError as error:
        return [Problem(resolved.where("data.files"), str(error), "", error.fix)]
    return [
        Problem(resolved.where(f"data.columns.{key}"), said, "a column of the file", f"set data.columns.{key}")
        for key, said in missing
    ]
