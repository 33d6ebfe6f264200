"""Turns what hooks return into one preprocessing chain, one reward, one constraint, one set of named components.

Conflict rules stand here and nowhere else: cycles, unknown names and duplicates are errors before any
work; an empty token mask stops; all rewards abstaining is `None`, never 0.
"""

from __future__ import annotations

import functools
import graphlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Protocol, TypeVar

from r1core.api import (
    JSON,
    Annotator,
    ConstraintState,
    DatasetTransform,
    DecodeConstraint,
    DecodeRequest,
    Example,
    PluginError,
    PrivacyPolicy,
    Reason,
    Reward,
    Span,
    SpanKind,
    UserError,
)


class Named(Protocol):
    """Anything with a `plugin/name`."""

    @property
    def name(self) -> str:
        """The component's name."""
        ...


T = TypeVar("T", bound=Named)


def unique(components: Iterable[T], what: str) -> dict[str, T]:
    """Components by name.

    Raises
    ------
    UserError : when two carry one name.
    """
    found: dict[str, T] = {}
    for component in components:
        if component.name in found:
            raise UserError(f"two {what}s are called {component.name!r}", fix="block one plugin with --no-plugin")
        found[component.name] = component
    return found


def pick(found: Mapping[str, T], name: str, what: str, key: str) -> T:
    """The component that a recipe key names.

    Raises
    ------
    UserError : when there is none, with the nearest name.
    """
    if name in found:
        return found[name]
    close = get_close_matches(name, found, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(found)) or 'none'}"
    raise UserError(f"{key}: no {what} is called {name!r}; {hint}", fix="check run.plugins and the name")


# ------------------------------------------------------------------------------------------------ preprocessing


def ordered(steps: Sequence[Annotator | DatasetTransform]) -> list[Annotator | DatasetTransform]:
    """Steps in an order that respects `after` and `before`; ties by name. `*` stands for every other step.

    Raises
    ------
    UserError : for a cycle, or a name that no step carries.
    """
    by_name = unique(steps, "preprocessing step")
    edges: dict[str, set[str]] = {name: set() for name in by_name}
    for name, step in by_name.items():
        for field, others in (("after", step.after), ("before", step.before)):
            for other in _expand(others, name, by_name, field):
                first, second = (other, name) if field == "after" else (name, other)
                edges[second].add(first)
    sorter = graphlib.TopologicalSorter(edges)
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise UserError(f"preprocessing steps wait for one another: {' -> '.join(error.args[1])}") from error
    result = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()])
        name, ready = ready[0], ready[1:]
        result.append(by_name[name])
        sorter.done(name)
    return result


def _expand(others: Sequence[str], name: str, known: Mapping[str, object], field: str) -> Iterator[str]:
    for other in others:
        if other == "*":
            yield from (one for one in known if one != name)
        elif other in known:
            yield other
        else:
            raise UserError(
                f"{name}: {field} names {other!r}, which no loaded plugin provides",
                fix=f"add its plugin to run.plugins; loaded steps: {', '.join(sorted(known))}",
            )


@dataclass(frozen=True, slots=True)
class Change:
    """What one step did to one example: for `prepare --trace`."""

    step: str
    before: Example
    after: Example


def is_transform(step: object) -> bool:
    """Whether a preprocessing step works on the stream rather than on one example."""
    return hasattr(step, "transform")


class Chain:
    """All annotators and transforms of a run, in order, and the span kinds that they write.

    `own` : the core's own kinds, which no step writes.
    """

    def __init__(self, steps: Sequence[Annotator | DatasetTransform], own: Sequence[SpanKind] = ()) -> None:
        self.steps = ordered(steps)
        kinds = {kind.name: kind for kind in own}
        for step in self.steps:
            for kind in getattr(step, "span_kinds", ()):
                if kinds.setdefault(kind.name, kind) is not kind:
                    raise UserError(f"two steps register the span kind {kind.name!r}")
        self.kinds = kinds
        self.causal = frozenset(k.name for k in kinds.values() if k.causal and k.feature is not None)
        """Kinds whose features may stand inside an answer."""

    def annotate(self, example: Example) -> Example:
        """Run every annotator over a prompt, as prepare, generate and serve do alike."""
        return self._annotate([s for s in self.steps if not is_transform(s)], example)

    def stream(self, examples: Iterable[Example]) -> Iterator[Example]:
        """Prepare's stream, step by step in order: annotators record by record, transforms over the whole stream."""
        for transforms, group in itertools.groupby(self.steps, key=is_transform):
            steps = list(group)
            if transforms:
                for step in steps:
                    examples = step.transform(examples)  # type: ignore[union-attr]
            else:
                examples = map(functools.partial(self._annotate_record, steps), examples)
        return iter(examples)

    def _annotate_record(self, steps: Sequence[Annotator | DatasetTransform], example: Example) -> Example:
        """Annotate the prompt of a training record; the answer is withheld, so no feature can look into it.

        Spans that come with the record and stand inside the answer are dropped unless their kind is causal.
        """
        if not example.messages or example.messages[-1].role != "assistant":
            return self._annotate(steps, example)
        answer, last = example.messages[-1], len(example.messages) - 1
        inside = [s for s in example.spans if s.part == last and s.kind in self.kinds and self.kinds[s.kind].causal]
        prompt = self._annotate(steps, example.without_answer())
        moved = [replace(s, part=len(prompt.messages)) for s in inside]
        return replace(prompt, messages=(*prompt.messages, answer), fields=example.fields).with_spans(moved)

    def in_answer(self, example: Example) -> tuple[Span, ...]:
        """Spans with causal features in the last message, an answer so far; only annotators of causal kinds run.

        Raises
        ------
        PluginError : when an annotator changes the answer, which was generated and stands.
        """
        last, answer = len(example.messages) - 1, example.messages[-1]
        for step in self.steps:
            if any(kind.causal for kind in getattr(step, "span_kinds", ())):
                example = self._checked(step, step(example))  # type: ignore[operator]
                if example.messages[last:] != (answer,):
                    problem = f"{step.name} changes the answer; an annotator of a causal kind may only add spans to it"
                    raise PluginError(step.name.partition("/")[0], "preprocess", problem)
        return tuple(span for span in example.spans if span.part == last and span.kind in self.causal)

    def _annotate(self, steps: Sequence[Annotator | DatasetTransform], example: Example) -> Example:
        for step in steps:
            example = self._checked(step, step(example))  # type: ignore[operator]
        return example

    def trace(self, example: Example) -> Iterator[Change]:
        """Each annotator's change to one prompt."""
        for step in self.steps:
            if not is_transform(step):
                after = self._checked(step, step(example))  # type: ignore[operator]
                yield Change(step.name, example, after)
                example = after

    def _checked(self, step: Annotator | DatasetTransform, example: Example) -> Example:
        for span in example.spans:
            inside = 0 <= span.part < len(example.messages)
            length = len(example.messages[span.part].content) if inside else -1
            if span.kind not in self.kinds or not 0 <= span.start < span.end <= length:
                problem = f"{step.name} left a span {span.kind} [{span.start}, {span.end}) outside its message"
                if span.kind not in self.kinds:
                    problem = f"{step.name} wrote a span of the unregistered kind {span.kind!r}"
                raise PluginError(step.name.partition("/")[0], "preprocess", f"{problem} (example {example.id!r})")
        return example


# ------------------------------------------------------------------------------------------- rewards, constraints


class RewardSum:
    """The weighted mean of rewards over those that answer; None where all abstain (unscorable, never 0).

    Parameters
    ----------
    answer_of : from a completion to what rewards are shown of it: of a model that reasons, the answer alone.
    """

    def __init__(
        self, rewards: Sequence[Reward], weights: Mapping[str, float], answer_of: Callable[[str], str] = str
    ) -> None:
        self._answer_of = answer_of
        named = unique(rewards, "reward")
        for name in weights:
            pick(named, name, "reward", f"rewards.{name}")
        self.terms = [(weights.get(name, 1.0), reward) for name, reward in sorted(named.items())]

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **fields: Sequence[JSON]
    ) -> list[float | None]:
        """Score each completion."""
        totals, weights = [0.0] * len(completions), [0.0] * len(completions)
        shown = [self._answer_of(completion) for completion in completions]
        for weight, reward in self.terms:
            for index, score in enumerate(reward(prompts, shown, **fields)):
                if score is not None:
                    totals[index] += weight * score
                    weights[index] += abs(weight)
        return [t / w if w else None for t, w in zip(totals, weights, strict=True)]


class ConstraintSet:
    """All decode constraints of a run; `states` starts those that have something to say about a request."""

    def __init__(self, constraints: Sequence[DecodeConstraint]) -> None:
        self.constraints = [c for _, c in sorted(unique(constraints, "constraint").items())]

    def states(self, request: DecodeRequest) -> list[tuple[str, ConstraintState]]:
        """`(name, state)` of every constraint that applies to this request."""
        started = [(c.name, c.start(request)) for c in self.constraints]
        return [(name, state) for name, state in started if state is not None]

    def recheck(self, example: Example, text: str, *, finished: bool = True) -> list[tuple[str, Reason]]:
        """`(constraint, finding)` of every constraint that offers a `recheck`.

        Of an answer that is not `finished` nobody is asked what it lacks, but what stands in it.
        """
        asked = [c for c in self.constraints if finished or not getattr(c, "requires", False)]
        offered = ((c.name, getattr(c, "recheck", None)) for c in asked)
        return [(name, reason) for name, recheck in offered if recheck is not None for reason in recheck(example, text)]

    def rules(self, example: Example) -> list[str]:
        """Ids of the rules that apply to a prompt, of the constraints that tell them."""
        offered = (getattr(c, "rules", None) for c in self.constraints)
        return [rule for rules in offered if rules is not None for rule in rules(example)]

    def provenance(self, example: Example, text: str) -> dict[str, JSON]:
        """What an answer to a prompt rests on, by constraint, of those that tell it."""
        offered = ((c.name, getattr(c, "provenance", None)) for c in self.constraints)
        told = ((name, asked(example, text)) for name, asked in offered if asked is not None)
        return {name: said for name, said in told if said is not None}


def one_privacy(policies: Sequence[PrivacyPolicy]) -> PrivacyPolicy | None:
    """The run's privacy policy.

    Raises
    ------
    UserError : for more than one.
    """
    if len(policies) > 1:
        names = " and ".join(p.name for p in policies)
        raise UserError(f"two privacy policies: {names}", fix="keep exactly one of them in run.plugins")
    return policies[0] if policies else None
