"""Composition rules, against brute force."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1core.api import Example, Message, PluginError, Span, SpanKind, UserError
from r1core.compose import Chain, ConstraintSet, RewardSum, one_privacy, ordered, pick, unique
from r1core.runs.fingerprint import own_fingerprints

NOTE = SpanKind("a/note", encode=str, decode=str)
CAUSAL = SpanKind("a/causal", encode=str, decode=str, causal=True)


@dataclass
class Step:
    """An annotator that does nothing but remember what it saw."""

    name: str
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    span_kinds: tuple[SpanKind, ...] = ()
    seen: list[Example] = field(default_factory=list)
    adds: tuple[Span, ...] = ()

    def __call__(self, example: Example) -> Example:
        self.seen.append(example)
        return example.with_spans(self.adds)

    def fingerprint(self) -> str:
        return self.name


@dataclass
class Doubling:
    name: str
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    fits_on_data: bool = False
    cross_record: bool = False

    def transform(self, examples: Iterable[Example]) -> Iterator[Example]:
        for example in examples:
            yield example
            yield replace(example, id=example.id + "'")

    def fingerprint(self) -> str:
        return self.name


NAMES = tuple("abcde")
REFERENCES = st.lists(st.sampled_from(NAMES), max_size=2, unique=True).map(tuple)


def respects(order: Sequence[Step]) -> bool:
    place = {step.name: i for i, step in enumerate(order)}
    return all(
        all(place[o] < place[s.name] for o in s.after) and all(place[s.name] < place[o] for o in s.before)
        for s in order
    )


@given(st.lists(st.tuples(REFERENCES, REFERENCES), min_size=5, max_size=5), st.permutations(range(5)))
@settings(max_examples=150, deadline=None)
def test_the_order_is_the_first_of_all_that_respect_the_wishes(wishes: list[tuple], shuffled: list[int]) -> None:
    steps = [
        Step(name, tuple(o for o in after if o != name), tuple(o for o in before if o != name))
        for name, (after, before) in zip(NAMES, wishes, strict=True)
    ]
    good = [p for p in itertools.permutations(steps) if respects(p)]  # in lexicographic order
    given_order = [steps[i] for i in shuffled]
    if good:
        assert [s.name for s in ordered(given_order)] == [s.name for s in good[0]]
    else:
        with pytest.raises(UserError, match="wait for one another"):
            ordered(given_order)


def test_a_star_is_every_other_step() -> None:
    steps = [Step("x/last", after=("*",)), Step("y/mid"), Step("z/first", before=("*",))]
    assert [s.name for s in ordered(steps)] == ["z/first", "y/mid", "x/last"]


def test_a_cycle_names_its_steps() -> None:
    with pytest.raises(UserError, match=r"(p/a.*p/b|p/b.*p/a)"):
        ordered([Step("p/a", after=("p/b",)), Step("p/b", after=("p/a",))])
    with pytest.raises(UserError, match="wait for one another"):
        ordered([Step("p/a", after=("*",)), Step("p/b", after=("*",))])


def test_an_unknown_name_says_who_wants_it() -> None:
    with pytest.raises(UserError, match="p/a: after names 'umls/links', which no loaded plugin provides") as refused:
        ordered([Step("p/a", after=("umls/links",)), Step("p/b")])
    assert "p/a, p/b" in refused.value.fix


def test_two_components_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="two layers are called 'p/a'"):
        unique([Step("p/a"), Step("p/a")], "layer")
    with pytest.raises(UserError, match="two preprocessing steps are called 'p/a'"):
        Chain([Step("p/a"), Step("p/a")])
    with pytest.raises(UserError, match="two steps register the span kind 'a/note'"):
        Chain([Step("p/a", span_kinds=(NOTE,)), Step("p/b", span_kinds=(replace(NOTE),))])


def test_a_wrong_name_gets_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"layers\.p/concpt: no layer is called 'p/concpt'; did you mean 'p/concept'"):
        pick({"p/concept": Step("p/concept")}, "p/concpt", "layer", "layers.p/concpt")
    with pytest.raises(UserError, match="known: none"):
        pick({}, "x", "layer", "layers.x")


def record(**options: object) -> Example:
    messages = (Message("user", "chest pain"), Message("assistant", "Cardiology"))
    fields = {"label": "Cardiology", "text": "chest pain"}
    return replace(Example("r", messages, "t", fields=fields), **options)  # type: ignore[arg-type]


def test_annotators_never_see_the_answer() -> None:
    watching = Step("p/watch", span_kinds=(NOTE,), adds=(Span(0, 0, 5, "a/note", "v"),))
    example = record(spans=(Span(1, 0, 4, "a/note", "secret"),))
    (out,) = Chain([watching]).stream([example])
    (seen,) = watching.seen
    assert "Cardiology" not in repr(seen)
    assert "secret" not in repr(seen)
    assert out.messages == example.messages
    assert out.fields == example.fields
    assert out.spans == (Span(0, 0, 5, "a/note", "v"),)


def test_only_causal_spans_stay_inside_the_answer() -> None:
    step = Step("p/s", span_kinds=(NOTE, CAUSAL))
    example = record(spans=(Span(1, 0, 4, "a/causal", "kept"), Span(1, 0, 4, "a/note", "dropped")))
    (out,) = Chain([step]).stream([example])
    assert [s.value for s in out.spans] == ["kept"]
    assert step.seen[0].spans == ()


def test_in_an_answer_only_annotators_of_causal_kinds_run_and_only_their_features_count() -> None:
    featured = replace(CAUSAL, name="b/featured", width=1, feature=lambda value: (1.0,))
    spans = (
        Span(1, 0, 4, "b/featured", "in"),
        Span(0, 0, 4, "b/featured", "before"),
        Span(1, 0, 4, "a/causal", "bare"),
    )
    steps = (
        Step("p/plain", span_kinds=(NOTE,)),
        Step("p/bare", span_kinds=(CAUSAL,)),
        Step("p/featured", after=("p/bare",), span_kinds=(featured,), adds=spans),
    )
    chain = Chain([*steps, Doubling("p/twice")])
    assert chain.causal == {"b/featured"}
    assert chain.in_answer(record()) == spans[:1]
    assert [len(step.seen) for step in steps] == [0, 1, 1]


def test_prepare_and_generation_annotate_a_prompt_alike() -> None:
    chain = Chain([Step("p/s", span_kinds=(NOTE,), adds=(Span(0, 6, 10, "a/note", "v"),))])
    (prepared,) = chain.stream([record()])
    assert chain.annotate(record(messages=record().messages[:1])).spans == prepared.spans


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (Span(0, 0, 11, "a/note", "v"), "outside its message"),
        (Span(0, 3, 3, "a/note", "v"), "outside its message"),
        (Span(0, -1, 3, "a/note", "v"), "outside its message"),
        (Span(1, 0, 3, "a/note", "v"), "outside its message"),  # the withheld answer
        (Span(-1, 0, 3, "a/note", "v"), "outside its message"),
        (Span(0, 0, 3, "b/other", "v"), "unregistered kind 'b/other'"),
    ],
)
def test_a_span_that_is_nowhere_is_the_plugins_fault(span: Span, said: str) -> None:
    chain = Chain([Step("acme/s", span_kinds=(NOTE,), adds=(span,))])
    with pytest.raises(PluginError, match=f"plugin 'acme' failed in hook 'preprocess'.*{said}.*'r'"):
        list(chain.stream([record()]))


def test_transforms_stand_in_line_with_annotators() -> None:
    first, last = Step("p/a", before=("p/b",)), Step("p/c", after=("p/b",))
    chain = Chain([last, Doubling("p/b"), first])
    assert [e.id for e in chain.stream([record(), record(id="s")])] == ["r", "r'", "s", "s'"]
    assert [len(first.seen), len(last.seen)] == [2, 4]
    assert own_fingerprints(chain.steps) == {"p/a": "p/a", "p/b": "p/b", "p/c": "p/c"}
    chain.annotate(record(messages=record().messages[:1]))  # generation runs no transform
    assert [len(first.seen), len(last.seen)] == [3, 5]


def test_a_trace_shows_each_steps_change() -> None:
    span = Span(0, 0, 5, "a/note", "v")
    changes = list(Chain([Step("p/a", span_kinds=(NOTE,), adds=(span,)), Step("p/b")]).trace(record()))
    assert [(c.step, len(c.after.spans) - len(c.before.spans)) for c in changes] == [("p/a", 1), ("p/b", 0)]


@dataclass
class Fixed:
    name: str
    scores: list[float | None]

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **fields: object) -> list[float | None]:
        return self.scores

    def fingerprint(self) -> str:
        return self.name


SCORE = st.one_of(st.none(), st.floats(-10, 10))


@given(
    st.integers(0, 3).flatmap(lambda n: st.lists(st.lists(SCORE, min_size=n, max_size=n), min_size=1, max_size=4)),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_rewards_are_the_weighted_mean_of_those_that_answer(scores: list[list], data: st.DataObject) -> None:
    rewards = [Fixed(f"p/{i}", s) for i, s in enumerate(scores)]
    weights = {r.name: data.draw(st.floats(0.1, 5)) for r in rewards if data.draw(st.booleans())}
    number = len(scores[0])
    total = RewardSum(rewards, weights)([""] * number, [""] * number)
    for column in range(number):
        answered = [(weights.get(r.name, 1.0), r.scores[column]) for r in rewards if r.scores[column] is not None]
        if answered:
            assert total[column] == pytest.approx(sum(w * s for w, s in answered) / sum(w for w, _ in answered))
        else:
            assert total[column] is None  # unscorable, never 0


def test_a_weight_for_no_reward_is_refused() -> None:
    with pytest.raises(UserError, match=r"rewards\.p/fluent: no reward is called 'p/fluent'; did you mean 'p/fluency'"):
        RewardSum([Fixed("p/fluency", [])], {"p/fluent": 1.0})


@dataclass
class Starting:
    name: str
    state: object

    def start(self, request: object) -> object:
        return self.state

    def fingerprint(self) -> str:
        return self.name


def test_a_constraint_with_nothing_to_say_takes_no_part() -> None:
    both = ConstraintSet([Starting("p/b", "state"), Starting("p/a", None)])  # type: ignore[list-item]
    assert both.states(object()) == [("p/b", "state")]  # type: ignore[arg-type]
    with pytest.raises(UserError, match="two constraints are called 'p/a'"):
        ConstraintSet([Starting("p/a", None), Starting("p/a", None)])  # type: ignore[list-item]


def test_there_is_one_privacy_policy_or_none() -> None:
    assert one_privacy([]) is None
    one, two = Step("dp/one"), Step("dp/two")
    assert one_privacy([one]) is one  # type: ignore[list-item]
    with pytest.raises(UserError, match="two privacy policies: dp/one and dp/two"):
        one_privacy([one, two])  # type: ignore[list-item]
