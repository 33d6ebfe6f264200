"""Free-text metrics against worked examples, naive recursion and a plugin's own figure."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1core.api import Example, PluginError, UserError
from r1core.evaluate import free_text, metrics

sentences = st.lists(st.sampled_from(["aspirin", "and", "heparin", "not"]), max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("prediction", "reference", "exact", "f1"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0, 1.0),
        ("tower", "the Eiffel Tower", 0.0, 2 / 3),
        ("an apple a day", "apple", 0.0, 2 / 3),
        ("heparin heparin", "heparin", 0.0, 2 / 3),
        ("yes", "no", 0.0, 0.0),
        ("the", "a", 1.0, 1.0),
        ("", "no", 0.0, 0.0),
    ],
)
def test_exact_match_and_token_f1_as_squad_defines_them(prediction, reference, exact, f1):
    assert free_text.exact_match(prediction, reference) == exact
    assert free_text.token_f1(prediction, reference) == pytest.approx(f1)


def test_rouge_l_as_in_its_paper():
    # Lin 2004, section 3.1: "police killed the gunman" against two candidates.
    assert free_text.rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(3 / 4)
    assert free_text.rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(2 / 4)


@given(sentences, sentences)
def test_rouge_l_equals_a_naive_recursion(prediction, reference):
    ours, theirs = tuple(prediction.split()), tuple(reference.split())

    @cache
    def longest(i: int, j: int) -> int:
        if i == len(ours) or j == len(theirs):
            return 0
        if ours[i] == theirs[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    common = longest(0, 0)
    if not ours and not theirs:
        expected = 1.0
    elif common == 0:
        expected = 0.0
    else:
        precision, recall = common / len(ours), common / len(theirs)
        expected = 2 * precision * recall / (precision + recall)
    assert free_text.rouge_l(prediction, reference) == pytest.approx(expected)


class Length:
    """A metric as a plugin brings it: mean length of the answers, in characters."""

    name = "length"
    higher_is_better = False

    def __call__(self, predictions, references, examples):
        assert [e.id for e in examples] == references
        return sum(map(len, predictions)) / len(predictions)


def examples(n: int) -> list[Example]:
    return [Example(str(i), (), "t") for i in range(n)]


def test_a_plugins_metric_gets_its_name_value_and_error():
    named = free_text.named_metrics([("ours", Length())])
    assert list(named) == ["ours/length"]
    texts = ["x" * (i % 7) for i in range(100)]
    rows = examples(100)
    found = free_text.plugin_estimate("ours/length", named["ours/length"], texts, [e.id for e in rows], rows)
    closed = metrics.mean([len(t) for t in texts])
    assert found.value == pytest.approx(closed.value)
    assert found.se == pytest.approx(closed.se, rel=0.5)


def test_a_name_that_carries_its_plugin_is_not_prefixed_twice_and_two_of_one_name_are_refused():
    metric = Length()
    metric.name = "ours/length"
    assert list(free_text.named_metrics([("ours", metric)])) == ["ours/length"]
    with pytest.raises(UserError, match="two metrics are called 'ours/length'"):
        free_text.named_metrics([("ours", metric), ("ours", Length())])


def _broken(predictions, references, examples):
    return 1 / 0


def _endless(predictions, references, examples):
    return float("inf")


@pytest.mark.parametrize(
    ("metric", "message"), [(_broken, "ZeroDivisionError"), (_endless, "expected a finite number")]
)
def test_a_plugin_whose_metric_fails_is_named(metric, message):
    with pytest.raises(PluginError, match=f"plugin 'ours' failed in hook 'metric': ours/bad: .*{message}"):
        free_text.plugin_estimate("ours/bad", metric, ["a"], ["b"], examples(1))
